//! Fold-in at query time: lists from what users have had by now, not from what training knew.
//!
//! `fold_in => TRUE` runs the model's training query again for the users that are asked for, as
//! whoever asks: under that person's rights and policies. Interactions and users that are new since
//! training count at once, and rows that are gone count no more. Items that training did not know
//! have no factors and are left out, unless `fold_in_items => TRUE` has them solved first
//! (`new_items.rs`).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use catalog::models::LoadedModel;
use datafusion::common::Column;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{
    Distinct, Expr, JoinType, LogicalPlan, LogicalPlanBuilder, try_cast,
};
use futures::StreamExt;
use sqlparser::ast::{Expr as SqlExpr, FunctionArg, Value, ValueWithSpan};
use udfs::model::{Basket, Csr, Duplicates, IdIndex, ModelError, Triplets};

use crate::error::{Error, Result};
use crate::model::arguments::written_options;
use crate::model::new_items;
use crate::model::options::{TrainingOptions, model_error};
use crate::model::rows::binary;
use crate::model::train::{BYTES_PER_ROW, TrainingColumns, duplicates};
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::system::is_system;

/// The option's name.
pub const OPTION: &str = "fold_in";

/// Whether a call asks for lists from what users have had by now.
pub fn is_asked(arguments: &[FunctionArg]) -> bool {
    is_true(OPTION, arguments) || asks_for_items(arguments)
}

/// Whether it also asks for items that training did not know.
pub fn asks_for_items(arguments: &[FunctionArg]) -> bool {
    is_true(new_items::OPTION, arguments)
}

fn is_true(option: &str, arguments: &[FunctionArg]) -> bool {
    written_options(arguments).any(|(name, value)| name == option && truth(value) == Some(true))
}

/// What the option says; `None` when it is no literal.
pub fn truth(value: &SqlExpr) -> Option<bool> {
    match value {
        SqlExpr::Value(ValueWithSpan { value: Value::Boolean(truth), .. }) => Some(*truth),
        _ => None,
    }
}

/// The training query, planned as whoever asks.
#[derive(Debug, Clone)]
pub struct TrainingRows {
    /// User, item and, where there is one, rating.
    plan: LogicalPlan,
    /// How they are read.
    pub(super) reading: Reading,
}

/// How interactions are made of rows, as training made them.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) columns: TrainingColumns,
    pub(super) duplicates: Duplicates,
    pub(super) is_binary: bool,
}

impl TrainingRows {
    /// Plans the training query of a model.
    ///
    /// # Errors
    /// When who asks may not read its tables, or they have changed so that it does not fit.
    pub(crate) async fn plan(context: &Arc<StatementContext>, model: &LoadedModel) -> Result<Self> {
        let options = TrainingOptions::from_given(model.manifest.options.clone())?;
        let query = parse_query(&model.manifest.query)?;
        let (_, plan) = match Box::pin(context.plan_query(query)).await {
            Ok(planned) => planned,
            Err(error) => return Err(told(context, model, error).await?),
        };
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let found = TrainingColumns::find(&schema, &options)?;
        let also = found.rating.as_ref().map(|(index, _)| *index);
        let kept = [found.user.0, found.item.0].into_iter().chain(also);
        let kept: Vec<Expr> =
            kept.map(|index| Expr::from(plan.schema().qualified_field(index))).collect();
        let reading = Reading {
            columns: TrainingColumns {
                user: (0, found.user.1),
                item: (1, found.item.1),
                rating: found.rating.map(|(_, name)| (2, name)),
                timestamp: None,
                segment: None,
                split: None,
            },
            duplicates: duplicates(options.learner.is_explicit()),
            is_binary: options.counts_once(),
        };
        Ok(Self { plan: LogicalPlanBuilder::from(plan).project(kept)?.build()?, reading })
    }

    /// Everybody's rows.
    pub(super) fn of_all(&self) -> LogicalPlan {
        self.plan.clone()
    }

    /// An id as one of the rows' type: NULL, and so nobody's, when it is none.
    fn as_user(&self, id: Expr) -> Expr {
        try_cast(id, self.plan.schema().field(0).data_type().clone())
    }

    /// The rows of one user.
    ///
    /// # Errors
    /// When the user's type is none that an id can have.
    pub(super) fn of_user(&self, user: Expr) -> Result<LogicalPlan> {
        let of_row = Expr::from(self.plan.schema().qualified_field(0));
        let is_user = of_row.eq(self.as_user(user));
        Ok(LogicalPlanBuilder::from(self.plan.clone()).filter(is_user)?.build()?)
    }

    /// The rows of the users of a plan of one column; all rows where running the plan twice could
    /// give different users.
    ///
    /// # Errors
    /// When the users' type is none that an id can have.
    pub(super) fn of_users(&self, users: &LogicalPlan) -> Result<LogicalPlan> {
        if !gives_the_same_again(users)? {
            return Ok(self.plan.clone());
        }
        let column = |relation: &str, plan: &LogicalPlan| {
            Expr::from(Column::new(Some(relation), plan.schema().field(0).name()))
        };
        let is_asked = column("rows", &self.plan).eq(self.as_user(column("asked", users)));
        let users = LogicalPlanBuilder::from(users.clone()).alias("asked")?.build()?;
        let rows = LogicalPlanBuilder::from(self.plan.clone()).alias("rows")?;
        Ok(rows.join_on(users, JoinType::LeftSemi, [is_asked])?.build()?)
    }
}

/// Who may not see the training query learns nothing of it from an error.
async fn told(context: &Arc<StatementContext>, model: &LoadedModel, error: Error) -> Result<Error> {
    let object = context.engine().catalog().object(&model.name).await?;
    let owner = object.and_then(|object| object.owner);
    if context.rights().sees_definition(&model.name, owner.as_deref()) {
        return Ok(error);
    }
    Ok(Error::invalid_hint(
        format!("fold_in cannot read for you what {model} was trained on"),
        "ask its owner for SELECT on the tables of its training query, or leave fold_in out",
    ))
}

/// Whether a plan gives the same rows however often it runs: no LIMIT, which takes any rows,
/// nothing random, and nothing that the order of rows decides.
fn gives_the_same_again(plan: &LogicalPlan) -> Result<bool> {
    let mut same = true;
    plan.apply_with_subqueries(|node| {
        let is_plain = match node {
            // System tables tell of this moment.
            LogicalPlan::TableScan(scan) => {
                scan.fetch.is_none() && !scan.table_name.schema().is_some_and(is_system)
            }
            LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.iter().all(is_exact),
            LogicalPlan::Sort(sort) => sort.fetch.is_none(),
            LogicalPlan::Distinct(Distinct::All(_))
            | LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::EmptyRelation(_) => true,
            _ => false,
        };
        same &= is_plain && !node.expressions().iter().any(Expr::is_volatile);
        Ok(if same { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(same)
}

/// Whether an aggregate gives the same in any order of its rows, as one that takes the first does
/// not.
fn is_exact(aggregate: &Expr) -> bool {
    match aggregate {
        Expr::Alias(alias) => is_exact(&alias.expr),
        Expr::AggregateFunction(call) => ["count", "min", "max"].contains(&call.func.name()),
        _ => false,
    }
}

/// What users have had by now.
pub(super) struct History {
    users: IdIndex,
    /// Its users × the model's items.
    cells: Csr,
    /// Held as long as the rows are.
    _memory: MemoryReservation,
}

impl History {
    /// Reads the rows.
    ///
    /// # Errors
    /// As training does: NULL ids, weights that are not finite, or too little memory.
    pub(super) async fn read(
        items: &IdIndex,
        mut rows: SendableRecordBatchStream,
        reading: &Reading,
        memory: MemoryReservation,
    ) -> Result<Self> {
        let schema = rows.schema();
        let (name, data_type) = (&reading.columns.user.1, schema.field(0).data_type());
        let mut users = IdIndex::new(name, data_type).map_err(model_error)?;
        let mut cells = Triplets::default();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            memory.try_grow(batch.num_rows() * BYTES_PER_ROW)?;
            add(&mut cells, &mut users, items, &batch, reading)?;
        }
        let (cells, _) = cells.build(users.len(), items.len(), reading.duplicates);
        let cells = if reading.is_binary { binary(&cells)? } else { cells };
        Ok(Self { users, cells, _memory: memory })
    }

    /// What each user has had; `codes` are the model's of those whom it knows.
    ///
    /// # Errors
    /// When the ids have a type that those of the rows do not compare to.
    pub(super) fn baskets(&self, users: &ArrayRef, codes: &[Option<u32>]) -> Result<Vec<Basket>> {
        let rows = self.users.lookup(users).map_err(model_error)?;
        let basket = |(row, user): (Option<u32>, &Option<u32>)| {
            let (items, weights) =
                row.map_or((&[][..], &[][..]), |row| self.cells.row(row as usize));
            Basket { user: *user, items: items.to_vec(), weights: weights.to_vec() }
        };
        Ok(rows.into_iter().zip(codes).map(basket).collect())
    }
}

fn add(
    cells: &mut Triplets,
    users: &mut IdIndex,
    items: &IdIndex,
    batch: &RecordBatch,
    reading: &Reading,
) -> Result<()> {
    let users = users.encode(batch.column(0)).map_err(model_error)?;
    if batch.column(1).logical_null_count() > 0 {
        let column = reading.columns.item.1.clone();
        return Err(model_error(ModelError::Null { column }));
    }
    let items = items.lookup(batch.column(1)).map_err(model_error)?;
    let (weights, name) = reading.columns.weights(batch)?;
    for (row, (user, item)) in users.into_iter().zip(items).enumerate() {
        let Some(item) = item else { continue };
        let weight = weights.as_ref().map_or(1.0, |weights| weights.value(row));
        cells.push(user, item, weight, name).map_err(model_error)?;
    }
    Ok(())
}
