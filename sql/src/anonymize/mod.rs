//! `anonymize((SELECT …), quasi_identifiers => […], …)` in FROM: the rows of a query made alike
//! until nobody stands out; and `anonymize_report` of the same arguments: what they are still good
//! for.
//!
//! The query may be the name of a table in quotes. That and the tables of hierarchies are read with
//! the rights of whoever asks, as if they stood in FROM.

mod exec;
mod node;
mod options;
mod release;
mod table;

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Extension, LogicalPlan};
use sqlparser::ast::{FunctionArg, ObjectName, TableFactor};
use udfs::privacy::HierarchySet;

use crate::error::Result;
use crate::functions::FunctionDoc;
use crate::model::arguments;
use crate::over_query::{self, Call};
use crate::parse::name_parts;
use crate::session::StatementContext;
use crate::session::bindings::Bindings;

pub(crate) use node::AnonymizeNode;
use release::Releaser;

const ROWS: &str = "anonymize";
const REPORT: &str = "anonymize_report";
const FORM: &str = "write anonymize((SELECT …), quasi_identifiers => ['zip', 'age'], k => 5)";

/// Whether a call is of one of the functions.
pub(crate) fn is_ours(name: &ObjectName) -> bool {
    matches!(name_parts(name).as_slice(), [name] if name == ROWS || name == REPORT)
}

/// The documentation of the functions.
pub(crate) fn documentation() -> [FunctionDoc; 2] {
    let entry = |name: &str, syntax: &str, description: &str, example: &str| FunctionDoc {
        name: name.into(),
        aliases: Vec::new(),
        kind: "table",
        section: "Privacy Functions".into(),
        description: description.into(),
        syntax: syntax.into(),
        example: example.into(),
        arguments: arguments_documentation(),
        own: true,
    };
    [
        entry(
            ROWS,
            "anonymize((SELECT …) | 'table', quasi_identifiers => ['zip', 'age'] [, sensitive => \
             'disease', k => 5, l => 3, t => 0.2, hierarchies => STRUCT('interval:10,20' AS age), \
             suppression_limit => 0.05, method => 'optimal', …])",
            "The rows of a query with its quasi-identifiers made so alike that each class of equal \
             ones has at least k rows, and sensitive values as l and t ask for. Gives the \
             quasi-identifiers as text (means of numbers under microaggregation), the sensitive \
             columns and those named in insensitive; all other columns are left out. Rows come in \
             the order of their classes. Rows that are suppressed are left out. The query is held \
             in memory.",
            "SELECT * FROM anonymize((SELECT zip, age, disease FROM (VALUES ('13053', 28, 'flu'), \
             ('13068', 29, 'ulcer'), ('14850', 50, 'flu'), ('14853', 55, 'ulcer')) AS p (zip, age, \
             disease)), quasi_identifiers => ['zip', 'age'], sensitive => 'disease', k => 2, l => \
             2, hierarchies => STRUCT('prefix:3,2' AS zip, 'interval:10,20' AS age));",
        ),
        entry(
            REPORT,
            "anonymize_report((SELECT …) | 'table', quasi_identifiers => ['zip', 'age'] [, …])",
            "What anonymize of the same arguments gives, in figures: aspect (utility, risk, \
             criterion or level), metric, value, before (the same of the rows as they were), unit \
             and explanation. Utility: rows, suppressed_rows, classes, largest_class, \
             average_class_size, discernibility, discernibility_star (DM*, which 'optimal' makes \
             least), information_loss (NCP) and non_uniform_entropy. Risk: prosecutor_risk, \
             journalist_risk, marketer_risk, unique_rows and population_unique_rows.",
            "SELECT metric, before, value FROM anonymize_report((SELECT zip, age FROM (VALUES \
             ('13053', 28), ('13068', 29)) AS p (zip, age)), quasi_identifiers => ['zip', 'age'], \
             k => 2) WHERE aspect = 'risk';",
        ),
    ]
}

fn arguments_documentation() -> Vec<(String, String)> {
    [
        ("quasi_identifiers", "Columns by which somebody could be recognized: a name or a list."),
        ("sensitive", "Columns that must not be learnt; l and t are of each of them."),
        ("insensitive", "Columns that are given as they are."),
        ("k", "The fewest rows of a class; 5 unless given."),
        (
            "l, l_diversity, c",
            "'distinct' (usual): at least l values in a class; 'entropy': as uncertain as l equally \
             frequent ones; 'recursive': the most frequent one less than c times all but the l - 1 \
             most frequent.",
        ),
        (
            "t, t_closeness",
            "The greatest distance of a class's sensitive values to those of all rows: 'equal' \
             (usual for text), 'ordered' (usual for numbers and times), or 'hierarchical' by the \
             column's hierarchy.",
        ),
        (
            "subset, delta_min, delta_max",
            "A column that is TRUE for the rows to be released, all rows being the population; and \
             the share of the population that a class may release, from 0 to 1.",
        ),
        (
            "hierarchies",
            "STRUCT('…' AS column, …): the name of a table whose columns are the levels, from the \
             value on; or 'interval:5,10,20', 'prefix:3,1', 'date:month,year'. Without one a \
             column is shown or '*'.",
        ),
        ("suppression_limit", "The greatest share of rows that 'optimal' may leave out; 0 unless given."),
        (
            "method",
            "'optimal' (usual): one level a column, the best of all; 'mondrian': each class its \
             own intervals and sets; 'microaggregation': each class its means.",
        ),
        (
            "release",
            "A name: what is given goes on record under it and under each table that the query \
             reads, and is refused where it differs from any earlier release of these by one row \
             of a class or more and by fewer than k. For 'optimal' alone, and not of \
             anonymize_report.",
        ),
    ]
    .map(|(name, meaning)| (name.to_owned(), meaning.to_owned()))
    .to_vec()
}

/// The tables that a call names as hierarchies.
pub(crate) fn hierarchy_names(function: &str, arguments: &[FunctionArg]) -> Vec<String> {
    if function != ROWS && function != REPORT {
        return Vec::new();
    }
    options::hierarchy_names(arguments)
}

/// Plans the functions, over the hierarchies of a statement.
#[derive(Debug)]
pub(crate) struct AnonymizeRelation {
    hierarchies: Arc<HierarchySet>,
    releaser: Releaser,
}

impl AnonymizeRelation {
    /// A planner over what the statement is bound to, for its principal.
    pub(crate) fn new(bindings: &Bindings, context: &Arc<StatementContext>) -> Self {
        let hierarchies = Arc::clone(&bindings.hierarchies);
        Self { hierarchies, releaser: Releaser::new(context) }
    }

    fn plan(
        &self,
        is_report: bool,
        arguments: Vec<FunctionArg>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let (query, rest) = over_query::query(ROWS, FORM, arguments)?;
        let input = arguments::rows(query, context)?;
        let given = options::Given::read(&rest, context)?;
        let asked = given.asked(is_report, &input, &self.hierarchies, &self.releaser)?;
        let node = AnonymizeNode::new(asked, input)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }
}

impl RelationPlanner for AnonymizeRelation {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DataFusionResult<RelationPlanning> {
        let Call { name, arguments, alias } = match over_query::call(relation, is_ours) {
            Ok(call) => call,
            Err(other) => return Ok(RelationPlanning::Original(other)),
        };
        let is_report = name_parts(&name) == [REPORT];
        let plan = self.plan(is_report, arguments, context).map_err(DataFusionError::from)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::parser::Parser;

    use crate::dialect::AttuneDialect;

    #[test]
    fn hierarchies_that_are_tables_are_found() {
        let text = "SELECT * FROM anonymize((SELECT 1), hierarchies => STRUCT('main.h' AS a, \
                    'interval:5' AS b), k => 2)";
        let statement = Parser::parse_sql(&AttuneDialect, text).unwrap().remove(0);
        let found = crate::session::bindings::References::of(&statement).hierarchies;
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["main.h"]);
    }
}
