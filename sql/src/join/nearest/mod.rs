//! `nearest((SELECT …), (SELECT …), STRUCT(3 AS top_k))` in FROM: for each row of the first query
//! the rows of the second whose text is closest.

mod exec;
mod search;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore, lit};
use datafusion::physical_plan::ExecutionPlan;
use sqlparser::ast::{Expr as SqlExpr, FunctionArg, FunctionArgExpr, TableFactor};
use udfs::fuzzy::index::{Measure, SetKind};

use crate::error::{Error, Result};
use crate::functions::FunctionDoc;
use crate::model::arguments::{self, Arguments, known_options, literal, shown, whole_number};
use crate::parse::name_parts;

const NAME: &str = "nearest";
const OPTIONS: [&str; 5] = ["top_k", "text_col", "left_col", "right_col", "measure"];
const FORM: &str = "write nearest((SELECT …), (SELECT …), STRUCT(3 AS top_k, 'name' AS text_col))";
/// Most rows for each row of the first query.
const MOST: i64 = 10_000;

/// How close two texts are, by the name of the function that says so.
const MEASURES: [(&str, Measure); 7] = [
    ("levenshtein", Measure::Edit { osa: false }),
    ("osa", Measure::Edit { osa: true }),
    ("jaro", Measure::Jaro { winkler: false }),
    ("jaro_winkler", Measure::Jaro { winkler: true }),
    ("trigram", Measure::Sets(SetKind::Trigrams)),
    ("jaccard", Measure::Sets(SetKind::Characters)),
    ("cosine", Measure::Sets(SetKind::Bigrams)),
];

fn name_of(measure: Measure) -> &'static str {
    MEASURES.iter().find(|(_, known)| *known == measure).map_or("", |(name, _)| name)
}

fn field_of(measure: Measure) -> Field {
    match measure {
        Measure::Edit { .. } => Field::new("distance", DataType::Int64, false),
        _ => Field::new("similarity", DataType::Float64, false),
    }
}

/// The documentation of the function.
pub(crate) fn documentation() -> FunctionDoc {
    FunctionDoc {
        name: NAME.into(),
        aliases: Vec::new(),
        kind: "table",
        section: "Identity Functions".into(),
        description: "For each row of the first query the top_k rows (1) of the second whose text \
            is closest, closest first: the columns of both, distance or similarity, and rank (from \
            1). A column of the second query whose name the first has too is called near_ and its \
            name. text_col names the text in both queries, left_col and right_col in either; \
            without them each query has one column of texts. measure is levenshtein (the \
            default) or osa, which give distance, or jaro, jaro_winkler, trigram, jaccard or \
            cosine, which give similarity, as the functions of those names. Equally close texts \
            come in alphabetical order of their code points, rows of one text in the order of the \
            second query. A NULL is close to nothing, and a row of NULL is left out. The second \
            query is held in memory."
            .into(),
        syntax: "nearest((SELECT …), (SELECT …) [, STRUCT(3 AS top_k, 'name' AS text_col, \
                 'jaro_winkler' AS measure)])"
            .into(),
        example: "SELECT * FROM nearest((SELECT id, name FROM crm), (SELECT id, name FROM shop), \
                  STRUCT(3 AS top_k, 'name' AS text_col));"
            .into(),
        arguments: Vec::new(),
        own: true,
    }
}

/// Plans the function.
#[derive(Debug)]
pub(crate) struct NearestRelation;

impl RelationPlanner for NearestRelation {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DataFusionResult<RelationPlanning> {
        let is_ours = match &relation {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                name_parts(name) == [NAME]
            }
            _ => false,
        };
        let (arguments, alias) = match relation {
            TableFactor::Table { args: Some(arguments), alias, .. } if is_ours => {
                (arguments.args, alias)
            }
            TableFactor::Function { args, alias, .. } if is_ours => (args, alias),
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let plan = plan(arguments, context).map_err(DataFusionError::from)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn plan(
    arguments: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let (mut queries, mut options) = (Vec::new(), Vec::new());
    for argument in arguments {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Subquery(query)))
                if queries.len() < 2 =>
            {
                queries.push(arguments::rows(query, context)?);
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Struct { .. }))
            | FunctionArg::Named { .. } => options.push(argument),
            _ => {
                return Err(Error::invalid_hint("nearest takes two queries and options", FORM));
            }
        }
    }
    let Arguments { named, .. } = Arguments::read(NAME, options.into_iter(), context)?;
    let [left, right] = <[_; 2]>::try_from(queries)
        .map_err(|_| Error::invalid_hint("nearest takes two queries in parentheses", FORM))?;
    known_options(&named, &OPTIONS)?;
    let text = |name: &str| match named.get(name) {
        None => Ok(None),
        Some(value) => match literal(value).and_then(|value| value.try_as_str().flatten()) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(Error::invalid_hint(
                format!("{name} is {}", shown(value)),
                "it takes a name in quotes",
            )),
        },
    };
    let both = text("text_col")?;
    let columns = [
        text_column("first", &left, text("left_col")?.or_else(|| both.clone()))?,
        text_column("second", &right, text("right_col")?.or(both))?,
    ];
    let measure = match text("measure")? {
        None => Measure::Edit { osa: false },
        Some(given) => {
            let known = MEASURES.iter().find(|(name, _)| *name == given.to_lowercase());
            let names = MEASURES.map(|(name, _)| name);
            known.ok_or_else(|| Error::unknown("measure", &given, names))?.1
        }
    };
    let top_k = named.get("top_k").cloned().unwrap_or_else(|| lit(1_i64));
    let node = NearestNode::new(vec![left, right], columns, measure, top_k)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// Where a query's text is: the column of that name, or the only one of texts.
fn text_column(which: &str, plan: &LogicalPlan, name: Option<String>) -> Result<usize> {
    let fields = plan.schema().fields();
    let is_text = |field: &Arc<Field>| match field.data_type() {
        DataType::Dictionary(_, values) => values.is_string(),
        other => other.is_string(),
    };
    let texts: Vec<usize> = (0..fields.len()).filter(|at| is_text(&fields[*at])).collect();
    let found = match name {
        Some(name) => {
            let named = |field: &Arc<Field>| field.name().eq_ignore_ascii_case(&name);
            let found = fields.iter().position(named);
            let names = fields.iter().map(|field| field.name().as_str());
            found.ok_or_else(|| Error::unknown("column", &name, names))?
        }
        None => match texts.as_slice() {
            [only] => *only,
            _ => {
                return Err(Error::invalid_hint(
                    format!("the {which} query of nearest has {} columns of texts", texts.len()),
                    "name the one to compare: text_col, left_col or right_col",
                ));
            }
        },
    };
    if texts.contains(&found) {
        return Ok(found);
    }
    let field = &fields[found];
    Err(Error::invalid_hint(
        format!(
            "column {} of the {which} query is no text but {}",
            field.name(),
            field.data_type()
        ),
        "CAST it to VARCHAR",
    ))
}

/// The closest rows of the second input for each row of the first.
#[derive(Debug, Clone)]
pub(crate) struct NearestNode {
    inputs: Vec<LogicalPlan>,
    /// Where the texts are.
    columns: [usize; 2],
    measure: Measure,
    top_k: Expr,
    schema: DFSchemaRef,
}

impl NearestNode {
    fn new(
        inputs: Vec<LogicalPlan>,
        columns: [usize; 2],
        measure: Measure,
        top_k: Expr,
    ) -> Result<Self> {
        let mut fields: Vec<Arc<Field>> = Vec::new();
        for input in &inputs {
            for field in input.schema().fields() {
                let is_taken = fields.iter().any(|known| known.name() == field.name());
                let name =
                    if is_taken { format!("near_{}", field.name()) } else { field.name().clone() };
                fields.push(Arc::new(field.as_ref().clone().with_name(name)));
            }
        }
        fields.push(Arc::new(field_of(measure)));
        fields.push(Arc::new(Field::new("rank", DataType::Int32, false)));
        let mut names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|names| names[0] == names[1]) {
            return Err(Error::invalid_hint(
                format!("nearest would give two columns of the name {}", twice[0]),
                "give the columns of its queries other names with AS",
            ));
        }
        let schema = Arc::new(DFSchema::try_from(Schema::new(fields))?);
        Ok(Self { inputs, columns, measure, top_k, schema })
    }

    fn key(&self) -> (&[LogicalPlan], [usize; 2], &str, &Expr) {
        (&self.inputs, self.columns, name_of(self.measure), &self.top_k)
    }

    /// The operator over planned inputs.
    ///
    /// # Errors
    /// When `top_k` is no such number.
    pub fn operator(&self, inputs: &[Arc<dyn ExecutionPlan>]) -> Result<Arc<dyn ExecutionPlan>> {
        let top_k = whole_number("top_k", &self.top_k, 1..=MOST)?;
        let [left, right] = inputs else {
            return Err(Error::Internal("nearest has two inputs".into()));
        };
        let schema: SchemaRef = Arc::new(self.schema.as_arrow().clone());
        let inputs = [Arc::clone(left), Arc::clone(right)];
        let asked = exec::Asked { columns: self.columns, measure: self.measure, top_k };
        Ok(Arc::new(exec::NearestExec::new(inputs, asked, schema)))
    }
}

crate::model::node::compared_by_key!(NearestNode);

impl UserDefinedLogicalNodeCore for NearestNode {
    fn name(&self) -> &str {
        "Nearest"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.top_k.clone()]
    }

    // The node reads its columns by position, so none may be pruned below it.
    fn necessary_children_exprs(&self, _output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let columns = |input: &LogicalPlan| (0..input.schema().fields().len()).collect();
        Some(self.inputs.iter().map(columns).collect())
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Nearest: measure={}, top_k={}", name_of(self.measure), self.top_k)
    }

    fn with_exprs_and_inputs(
        &self,
        expressions: Vec<Expr>,
        inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let top_k = expressions.into_iter().next().unwrap_or_else(|| self.top_k.clone());
        let schema = Arc::clone(&self.schema);
        Ok(Self { inputs, columns: self.columns, measure: self.measure, top_k, schema })
    }
}
