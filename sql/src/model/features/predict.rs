//! `ML.PREDICT` of models of features: a query's columns and what the model says of each row.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use catalog::models::LoadedModel;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF};
use udfs::recommend::BoundModel;
use udfs::recommend::ml_predict::PredictRows;

use crate::error::{Error, Result};
use crate::model::features::columns::Positions;

/// The column of structs that is taken apart.
const PREDICTED: &str = "__predicted";

/// The query's rows with the model's columns behind their own.
///
/// # Errors
/// When a feature is missing, or of another type, or a column has the name of a prediction.
pub fn plan(model: &LoadedModel, input: LogicalPlan) -> Result<LogicalPlan> {
    let schema: SchemaRef = Arc::new(input.schema().as_arrow().clone());
    let features = Positions::to_predict(model, &schema)?.features;
    let predicted = model.model.predicted();
    if let Some(taken) =
        predicted.iter().find(|field| schema.column_with_name(field.name()).is_some())
    {
        return Err(Error::invalid_hint(
            format!("the query has a column {} of its own", taken.name()),
            "leave it out, or give it another name",
        ));
    }
    let bound = BoundModel::new(model.name.to_string(), model.version, Arc::clone(&model.model));
    let function = ScalarUDF::from(PredictRows::new(Arc::new(bound)));
    let own: Vec<Expr> = input.schema().iter().map(Expr::from).collect();
    let column = |at: usize| Expr::from(input.schema().qualified_field(at));
    let answer = function.call(features.into_iter().map(column).collect()).alias(PREDICTED);
    let with_answer: Vec<Expr> = own.iter().cloned().chain([answer]).collect();
    let plan = LogicalPlanBuilder::from(input).project(with_answer)?.build()?;
    let answer = Expr::from(plan.schema().qualified_field(own.len()));
    let taken_apart = predicted
        .iter()
        .map(|field| get_field(answer.clone(), field.name().as_str()).alias(field.name()));
    let columns: Vec<Expr> = own.into_iter().chain(taken_apart).collect();
    Ok(LogicalPlanBuilder::from(plan).project(columns)?.build()?)
}
