//! Side features: columns of `item_table` and `user_table` that say of items and users what
//! interactions do not. Factors are drawn to what the features say, and whoever is in such a table
//! without any interaction has factors of them alone.
//!
//! The tables are planned like any query of whoever trains, under the same rights and policies, as
//! further inputs of the training; so is the item table of a blend's signals.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use udfs::model::{Csr, FeatureRows, GatheredRows, IdIndex, ModelError};

use crate::error::{Error, Result};
use crate::model::entities::EntityLearner;
use crate::model::items::select;
use crate::model::options::{TrainingOptions, model_error};
use crate::model::signals::{self, SignalTable};
use crate::model::train::{Interactions, TrainingColumns};
use crate::session::StatementContext;

/// Whom a table tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Users, by `user_table`.
    Users,
    /// Items, by `item_table`.
    Items,
}

/// A table beside the training query.
#[derive(Debug, Clone)]
pub enum Beside {
    /// Of features.
    Features(SideTable),
    /// Of signals.
    Signals(SignalTable),
    /// Of what people say of pairs of records, which entities are made of.
    Pairs(PairTable),
}

impl Beside {
    /// Reads the table into what there is to learn from.
    ///
    /// # Errors
    /// When its rows are not what they have to be.
    pub async fn read(
        &self,
        rows: SendableRecordBatchStream,
        memory: &MemoryReservation,
        interactions: &mut Interactions,
    ) -> Result<()> {
        match self {
            Self::Features(table) => interactions.tell(table.read(rows, memory).await?),
            Self::Signals(table) => {
                interactions.signals = Some(table.read(rows, memory).await?);
                Ok(())
            }
            Self::Pairs(_) => Err(Error::Internal("interactions are no pairs of records".into())),
        }
    }
}

/// What people say of pairs of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairTable {
    /// What holds.
    Decisions,
    /// What is learned from.
    Labels,
}

impl PairTable {
    /// An error of planning the table, which says which one it is and what it is to hold.
    fn wrong(self, table: &str, names: &[&str], error: Error) -> Error {
        let Error::Invalid { what, hint } = error else { return error };
        let option = match self {
            Self::Decisions => "decision_table",
            Self::Labels => "labels_table",
        };
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        Error::invalid_hint(
            format!("{table}, the {option}: {what}"),
            format!("it has the columns {}{hint}", names.join(", ")),
        )
    }
}

/// A table of features: its plan has the id, then the features.
#[derive(Debug, Clone)]
pub struct SideTable {
    side: Side,
    table: String,
    id: String,
}

/// Plans the tables of features and signals that the options name.
///
/// # Errors
/// When a table or column does not exist for who asks.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    options: &TrainingOptions,
    columns: &TrainingColumns,
) -> Result<Vec<(Beside, LogicalPlan)>> {
    let asked = [
        (Side::Users, &options.user_table, &options.user_features, &columns.user.1),
        (Side::Items, &options.item_table, &options.item_features, &columns.item.1),
    ];
    let mut planned = vec![];
    for (side, table, features, id) in asked {
        let Some(table) = table.as_ref().filter(|_| !features.is_empty()) else { continue };
        if features.contains(id) {
            let option = if side == Side::Users { "user_features" } else { "item_features" };
            return Err(Error::invalid_hint(
                format!("{option} names {id}, the id itself"),
                "name columns that say something of several of them, such as a brand or a price",
            ));
        }
        let names: Vec<&str> =
            std::iter::once(id.as_str()).chain(features.iter().map(String::as_str)).collect();
        let (_, plan) = Box::pin(context.plan_query(select(table, &names)?)).await?;
        let table = SideTable { side, table: table.clone(), id: id.clone() };
        planned.push((Beside::Features(table), plan));
    }
    if let Some((table, plan)) = signals::plan(context, options, &columns.item.1).await? {
        planned.push((Beside::Signals(table), plan));
    }
    Ok(planned)
}

/// Plans the tables of what people say of pairs of records, in the order of columns that
/// [`crate::model::entities::fit`] reads.
///
/// # Errors
/// When a table or column does not exist for who asks.
pub(crate) async fn plan_pairs(
    context: &Arc<StatementContext>,
    learner: &EntityLearner,
    with_sources: bool,
) -> Result<Vec<(Beside, LogicalPlan)>> {
    let mut names = vec!["left_id", "right_id", "is_match"];
    if with_sources {
        names.extend(["left_source", "right_source"]);
    }
    let asked = [
        (PairTable::Decisions, &learner.decision_table),
        (PairTable::Labels, &learner.labels_table),
    ];
    let mut planned = vec![];
    for (of, table) in asked {
        let Some(table) = table else { continue };
        let planning = Box::pin(context.plan_query(select(table, &names)?)).await;
        let (_, plan) = planning.map_err(|error| of.wrong(table, &names, error))?;
        planned.push((Beside::Pairs(of), plan));
    }
    Ok(planned)
}

/// Rows of a table of features as they were read.
#[derive(Debug)]
pub struct SideRows {
    table: SideTable,
    ids: IdIndex,
    rows: FeatureRows,
}

impl SideTable {
    /// Reads the table.
    ///
    /// # Errors
    /// When an id is NULL or comes twice, or a column is no feature.
    async fn read(
        &self,
        mut rows: SendableRecordBatchStream,
        memory: &MemoryReservation,
    ) -> Result<SideRows> {
        let schema: SchemaRef = rows.schema();
        let fields = schema.fields();
        let id_type = fields.first().map_or(&DataType::Null, |field| field.data_type());
        let mut ids = IdIndex::new(&self.id, id_type).map_err(|error| self.wrong(error))?;
        let names = fields.iter().skip(1).map(|field| (field.name().as_str(), field.data_type()));
        let names: Vec<(&str, &DataType)> = names.collect();
        let mut features = FeatureRows::new(&names).map_err(|error| self.wrong(error))?;
        // A value as it is read and in order, and as a cell twice; the id beside.
        let row_bytes = names.len() * 40 + 64;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            memory.try_grow(batch.num_rows() * row_bytes)?;
            let known = ids.len();
            ids.encode(batch.column(0)).map_err(|error| self.wrong(error))?;
            if ids.len() < known + batch.num_rows() {
                return Err(Error::Model {
                    what: format!("{} has several rows of one {}", self.table, self.id),
                    hint: Some("a table of features has one row for each id".into()),
                });
            }
            features.add(&batch.columns()[1..]).map_err(|error| self.wrong(error))?;
        }
        Ok(SideRows { table: self.clone(), ids, rows: features })
    }
}

impl SideTable {
    /// An error of the table's rows, which are not the training query's.
    fn wrong(&self, error: ModelError) -> Error {
        let Error::Model { what, .. } = model_error(error) else {
            return Error::Internal("a table of features is read by rows".into());
        };
        Error::Model {
            what: format!("{}: {what}", self.table),
            hint: Some("leave such rows out, or cast the column, in a view of the table".into()),
        }
    }
}

/// What is told of users or of items, by the codes in which they came.
#[derive(Debug)]
pub struct Told {
    codes: Vec<u32>,
    rows: GatheredRows,
}

impl Told {
    /// Columns and cells at most of what [`Told::cells`] makes.
    pub fn size(&self) -> (usize, usize) {
        let columns = 1 + self.rows.features.iter().map(|feature| feature.width()).sum::<usize>();
        (columns, self.codes.len().saturating_mul(1 + self.rows.features.len()))
    }

    /// The cells of `rows` users or items by their new codes.
    pub fn cells(&self, new_codes: &[u32], rows: usize) -> Csr {
        let codes: Vec<u32> = self.codes.iter().map(|&code| new_codes[code as usize]).collect();
        self.rows.cells(&codes, rows)
    }
}

impl Interactions {
    /// Takes what tables tell; of whom interactions tell nothing is known from here on.
    ///
    /// # Errors
    /// When ids are of another kind than those of the interactions.
    pub fn tell(&mut self, side: SideRows) -> Result<()> {
        let SideRows { table, ids, rows } = side;
        let (known, at) = match table.side {
            Side::Users => (&mut self.users, 0),
            Side::Items => (&mut self.items, 1),
        };
        let is_text = |data_type: &DataType| udfs::model::features::is_text(data_type);
        if is_text(ids.data_type()) != is_text(known.data_type()) {
            return Err(Error::Model {
                what: format!(
                    "{} of {} has type {}, that of the training query {}",
                    table.id,
                    table.table,
                    ids.data_type(),
                    known.data_type()
                ),
                hint: Some("cast one of them, as in a view".into()),
            });
        }
        let values: ArrayRef = ids.values();
        if cast(&values, known.data_type())?.null_count() > values.null_count() {
            return Err(Error::Model {
                what: format!(
                    "{} has ids that do not fit {}, of type {} in the training query",
                    table.table,
                    table.id,
                    known.data_type()
                ),
                hint: Some("cast the column in the training query to the wider type".into()),
            });
        }
        let codes = known.encode(&values).map_err(model_error)?;
        self.features[at] = Some(Told { codes, rows: rows.finish(&[]) });
        Ok(())
    }
}
