//! `clean((SELECT …), …)` in FROM: the rows of a query with what is sure corrected; and
//! `clean_changes` of the same arguments: what was changed and why, and what is doubtful.
//!
//! Both are written out as a query over the functions that bring values into one spelling, so that
//! they run under the rights, policies and limits of whoever asks, and copies know what their
//! columns come of. Where the kind of a column or the order of its dates is inferred, the query is
//! read twice: once for what all values tell, and once for the rows.

mod kinds;
mod options;
mod written;

use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use sqlparser::ast::{
    FunctionArg, ObjectName, Query, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::error::{Error, Result};
use crate::functions::FunctionDoc;
use crate::model::arguments;
use crate::over_query::{self, Call};
use crate::parse::{name_parts, parse_query};
use crate::size;

const ROWS: &str = "clean";
const CHANGES: &str = "clean_changes";
const FORM: &str = "write clean((SELECT …), key => 'id'), or clean('table', key => 'id', dates => \
                    'born', region => 'GB')";

/// Whether a call is of one of the functions.
pub(crate) fn is_ours(name: &ObjectName) -> bool {
    matches!(name_parts(name).as_slice(), [name] if name == ROWS || name == CHANGES)
}

/// The documentation of the functions.
pub(crate) fn documentation() -> [FunctionDoc; 2] {
    let entry = |name: &str, syntax: &str, description: &str, example: &str| FunctionDoc {
        name: name.into(),
        aliases: Vec::new(),
        kind: "table",
        section: "Quality Functions".into(),
        description: description.into(),
        syntax: syntax.into(),
        example: example.into(),
        arguments: arguments_documentation(),
        own: true,
    };
    [
        entry(
            ROWS,
            "clean((SELECT …) | 'table' [, key => 'id', dates => 'born', region => 'GB', …])",
            "The rows of a query, each value in one spelling where it is sure: dates as ISO 8601, \
             e-mail addresses, telephone numbers as E.164, countries as ISO 3166-1 codes, \
             addresses, the case of names, measures in one unit, and white space. A doubtful value \
             stays as it is, and its column is named in doubtful_columns, a list behind the \
             query's columns. Columns keep their types. The kind of a text column is inferred from \
             its name and values unless it is given.",
            "SELECT * FROM clean((SELECT * FROM (VALUES (1, ' Ann@Example.COM '), (2, 'none')) AS v \
             (id, email)), key => 'id') ORDER BY id;",
        ),
        entry(
            CHANGES,
            "clean_changes((SELECT …) | 'table', key => 'id' [, dates => 'born', …])",
            "What clean of the same arguments changes, a row for each value that it corrects or \
             leaves as doubtful: the key, column, kind, before, after, reason and status. The \
             status is 'corrected', or 'quarantined' for a doubtful value, of which after is NULL.",
            "SELECT * FROM clean_changes((SELECT * FROM (VALUES (1, ' Ann@Example.COM '), (2, \
             'none')) AS v (id, email)), key => 'id') ORDER BY id;",
        ),
    ]
}

fn arguments_documentation() -> Vec<(String, String)> {
    [
        (
            "key",
            "Columns that tell the rows apart: a name or a list. They stay as they are; clean_changes \
             needs them.",
        ),
        (
            "dates, emails, phones, countries, addresses, names, texts",
            "Columns of the kind: a name or a list. In names lost capitals come back; in texts only \
             white space is corrected.",
        ),
        (
            "units",
            "STRUCT('kg' AS weight, …): the unit in which each measure shall be. A measure is a DOUBLE \
             or REAL with its unit in column weight_unit, or a text such as '5 lb'.",
        ),
        (
            "region, region_column",
            "The country in which telephone numbers without a country code are dialled: two letters, \
             or the column that has it.",
        ),
        (
            "date_order",
            "'DMY', 'MDY' or 'YMD'; inferred from the column's dates unless it is given.",
        ),
        (
            "partition_by",
            "Columns that tell sources apart; kinds and orders of dates are inferred for each.",
        ),
        (
            "infer",
            "FALSE leaves columns as they are whose kind is not given; TRUE (usual) infers it.",
        ),
        ("ignore", "Columns that stay as they are."),
    ]
    .map(|(name, meaning)| (name.to_owned(), meaning.to_owned()))
    .to_vec()
}

/// Plans the functions.
#[derive(Debug)]
pub(crate) struct CleanRelation;

impl RelationPlanner for CleanRelation {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DataFusionResult<RelationPlanning> {
        let Call { name, arguments, alias } = match over_query::call(relation, is_ours) {
            Ok(call) => call,
            Err(other) => return Ok(RelationPlanning::Original(other)),
        };
        let is_changes = name_parts(&name) == [CHANGES];
        let plan = plan(is_changes, arguments, context).map_err(DataFusionError::from)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn plan(
    is_changes: bool,
    arguments: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let (query, rest) = over_query::query(ROWS, FORM, arguments)?;
    if query_calls(&query) {
        return Err(Error::unsupported(
            "the query of clean calls clean",
            "save its rows first, by CREATE TABLE … AS SELECT, and clean that table",
        ));
    }
    let input = arguments::rows(query.clone(), context)?;
    // It is read twice, and what doubles has to be bounded before anybody walks it.
    size::check(&input)?;
    let input = with_types(input)?;
    let cleaning = options::Given::read(&rest)?.cleaning(input.schema().as_arrow())?;
    if cleaning.reads_twice() {
        check_steady(&input)?;
    }
    let text = match is_changes {
        true => written::changes(&cleaning)?,
        false => written::rows(&cleaning)?,
    };
    let mut whole = parse_query(&text)?;
    // This visitor has no way to stop.
    let ControlFlow::Continue(()) = VisitMut::visit(&mut *whole, &mut Rows(query));
    arguments::rows(whole, context)
}

/// The query with the types that its columns will have: until types are coerced, a UNION has those
/// of its first query, whatever the others hold.
fn with_types(input: LogicalPlan) -> Result<LogicalPlan> {
    let is_loose = input.exists(|node| {
        let LogicalPlan::Union(union) = node else { return Ok(false) };
        let types = |plan: &LogicalPlan| {
            plan.schema().fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>()
        };
        let of_union = types(node);
        Ok(union.inputs.iter().any(|input| types(input) != of_union))
    })?;
    match is_loose {
        true => Ok(TypeCoercion::new().analyze(input, &ConfigOptions::default())?),
        false => Ok(input),
    }
}

/// Whether a query calls the functions itself: each level would be planned several times.
fn query_calls(query: &Query) -> bool {
    Visit::visit(query, &mut Calls).is_break()
}

/// What is read twice has to be the same both times.
fn check_steady(input: &LogicalPlan) -> Result<()> {
    match crate::dml::varies(input)? {
        None => Ok(()),
        Some(how) => Err(Error::unsupported(
            format!("the query {how}, and it is read twice: for what columns hold, and for rows"),
            "save it first, by CREATE TABLE … AS SELECT, and clean that table; or give the kinds of \
             all columns with infer => FALSE, and date_order",
        )),
    }
}

/// Stops at a call of one of the functions.
struct Calls;

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. }
                if is_ours(name) =>
            {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Puts the query where the written text names its rows.
struct Rows(Box<Query>);

impl VisitorMut for Rows {
    type Break = Infallible;

    // After its parts, so that no table of the query itself is taken for its rows.
    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Infallible> {
        if let TableFactor::Table { name, alias, .. } = factor
            && name_parts(name) == [written::INPUT]
        {
            let (subquery, alias) = (self.0.clone(), alias.take());
            *factor = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
        }
        ControlFlow::Continue(())
    }
}
