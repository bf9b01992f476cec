//! Rows of persons that nobody may see: the restricted ones of every table, and the erased ones of
//! tables whose files Attune may not write.
//!
//! A table with such rows is read through an operator that leaves them out. It is a barrier: below
//! it go only comparisons of a column with a constant, and statistics end at it, so that neither a
//! count nor an error tells that there was somebody. To the planner it is a leaf: EXPLAIN ANALYZE
//! would count the rows that came in.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{can_cast_types, not, or};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use catalog::ObjectName;
use catalog::subject_marks::MarkedColumn;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use udfs::privacy::{SubjectTokens, Token};

use crate::error::{Error, Result};
use crate::policy::barrier::may_pass;
use crate::policy::retention;
use crate::session::StatementContext;
use crate::session::screen::{self, Screen, ScreenExec};

/// A table as it is read: without restricted and erased persons.
///
/// # Errors
/// When what is known of persons cannot be read.
pub(crate) async fn readable(
    context: &StatementContext,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
) -> Result<Arc<dyn TableProvider>> {
    let marked = context.engine().catalog().marked_columns(name).await?;
    if marked.is_empty() {
        return Ok(table);
    }
    let is_external = is_external(context, name).await?;
    let of = |column: &MarkedColumn| {
        let erased = column.erased.iter().filter(|_| is_external);
        column.restricted.iter().chain(erased).copied().collect()
    };
    Ok(Marked::over(context, table, &marked, of, Shown::Others).await?.0)
}

/// A table as a request of a person reads it: without those who were erased.
///
/// # Errors
/// As [`readable`].
pub(crate) async fn with_restricted(
    context: &StatementContext,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
) -> Result<Arc<dyn TableProvider>> {
    let marked = context.engine().catalog().marked_columns(name).await?;
    if marked.iter().all(|column| column.erased.is_empty()) || !is_external(context, name).await? {
        return Ok(table);
    }
    let of = |column: &MarkedColumn| column.erased.clone();
    Ok(Marked::over(context, table, &marked, of, Shown::Others).await?.0)
}

/// Whether somebody's rows are left out of what is read of a table.
///
/// # Errors
/// As [`readable`].
pub(crate) async fn hides(context: &StatementContext, name: &ObjectName) -> Result<bool> {
    let marked = context.engine().catalog().marked_columns(name).await?;
    if marked.iter().any(|column| !column.restricted.is_empty()) {
        return Ok(true);
    }
    // The files of a warehouse table hold nobody who was erased.
    Ok(!marked.is_empty() && is_external(context, name).await?)
}

/// A table that is going to be written anew: the rows that a change may reach, and those of
/// restricted persons, if there are any, which it keeps as they are. Both are told apart by the
/// same `marked`, so that no row is in both or in neither.
///
/// # Errors
/// As [`readable`].
pub(crate) async fn parts(
    context: &StatementContext,
    table: Arc<dyn TableProvider>,
    marked: &[MarkedColumn],
) -> Result<(Arc<dyn TableProvider>, Option<Arc<dyn TableProvider>>)> {
    let of = |column: &MarkedColumn| column.restricted.clone();
    let all = Arc::clone(&table);
    let (restricted, some) = Marked::over(context, table, marked, of, Shown::Marked).await?;
    if !some {
        return Ok((all, None));
    }
    let (others, _) = Marked::over(context, all, marked, of, Shown::Others).await?;
    Ok((others, Some(restricted)))
}

/// Checks that a table's rows may be replaced as a whole.
///
/// # Errors
/// When somebody in it is restricted, whose rows would go; when somebody is held, and rows may be
/// there that are too old to be seen.
pub(crate) async fn may_overwrite(context: &StatementContext, name: &ObjectName) -> Result<()> {
    let catalog = context.engine().catalog();
    let marked = catalog.marked_columns(name).await?;
    let whose = if marked.iter().any(|column| !column.restricted.is_empty()) {
        "restricted"
    } else if retention::hides(context, name).await?
        && !catalog.kept_columns(name).await?.is_empty()
    {
        // They are there longer than others' rows, and nobody sees them.
        "held"
    } else {
        return Ok(());
    };
    Err(Error::unsupported(
        format!("{name} has rows of {whose} persons, which INSERT OVERWRITE would remove"),
        "use DELETE, which keeps them, and INSERT",
    ))
}

/// A table that retention policies are applied to: the rows that may go, and those of persons who
/// are held or restricted, if there are any, which stay.
///
/// # Errors
/// As [`readable`].
pub(crate) async fn removable(
    context: &StatementContext,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
) -> Result<(Arc<dyn TableProvider>, Option<Arc<dyn TableProvider>>)> {
    let kept = context.engine().catalog().kept_columns(name).await?;
    parts(context, table, &kept).await
}

async fn is_external(context: &StatementContext, name: &ObjectName) -> Result<bool> {
    let object = context.engine().catalog().object(name).await?;
    Ok(object.is_some_and(|object| object.external))
}

/// Which rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Those of persons that are not marked.
    Others,
    /// Those of persons that are.
    Marked,
}

/// A column whose ids are looked at.
#[derive(Debug, Clone)]
struct Column {
    subject: String,
    index: usize,
    tokens: Arc<HashSet<Token>>,
}

/// A table of which some persons' rows are shown or not.
struct Marked {
    table: Arc<dyn TableProvider>,
    columns: Vec<Column>,
    tokens: Arc<SubjectTokens>,
    shown: Shown,
}

impl fmt::Debug for Marked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Marked({:?}, {:?})", self.shown, self.table)
    }
}

impl Marked {
    /// The table, and whether anybody in it is marked.
    async fn over(
        context: &StatementContext,
        table: Arc<dyn TableProvider>,
        marked: &[MarkedColumn],
        tokens_of: impl Fn(&MarkedColumn) -> HashSet<Token>,
        shown: Shown,
    ) -> Result<(Arc<dyn TableProvider>, bool)> {
        let schema = table.schema();
        let mut columns = Vec::new();
        for column in marked {
            let tokens = tokens_of(column);
            if tokens.is_empty() {
                continue;
            }
            // A column that is gone by now holds nobody, nor does one that is not read as text.
            if let Some((index, field)) = schema.column_with_name(&column.column)
                && can_cast_types(field.data_type(), &DataType::Utf8)
            {
                let (subject, tokens) = (column.subject.clone(), Arc::new(tokens));
                columns.push(Column { subject, index, tokens });
            }
        }
        if columns.is_empty() {
            return Ok((table, false));
        }
        let tokens = Arc::new(context.engine().catalog().subject_tokens().await?);
        let table: Arc<dyn TableProvider> = Arc::new(Self { table, columns, tokens, shown });
        Ok((table, true))
    }
}

#[async_trait]
impl TableProvider for Marked {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        self.table.table_type()
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let below = self.table.supports_filters_pushdown(filters)?;
        let both = filters.iter().zip(below);
        Ok(both
            .map(|(filter, below)| match may_pass(filter, |_| false) {
                true if below != TableProviderFilterPushDown::Unsupported => {
                    TableProviderFilterPushDown::Inexact
                }
                _ => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let wanted = match projection {
            Some(wanted) => wanted.clone(),
            None => (0..self.table.schema().fields().len()).collect(),
        };
        let mut read = wanted.clone();
        for column in &self.columns {
            if !read.contains(&column.index) {
                read.push(column.index);
            }
        }
        let at = |index: usize| read.iter().position(|known| *known == index).unwrap_or_default();
        let columns = self.columns.iter().map(|column| {
            let index = at(column.index);
            Column { index, ..column.clone() }
        });
        let columns: Vec<Column> = columns.collect();
        // Rows are left out above, so that no limit holds below.
        let input = self.table.scan(session, Some(&read), filters, None).await?;
        let schema = Arc::new(self.table.schema().project(&wanted)?);
        let (tokens, shown) = (Arc::clone(&self.tokens), self.shown);
        let look = Look { columns, tokens, shown, width: wanted.len() };
        ScreenExec::over(input, Arc::new(look), schema, session.config_options())
    }
}

/// What is looked at in each batch.
#[derive(Debug)]
struct Look {
    columns: Vec<Column>,
    tokens: Arc<SubjectTokens>,
    shown: Shown,
    /// The first columns are those that were asked for.
    width: usize,
}

impl fmt::Display for Look {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects = self.columns.iter().map(|column| column.subject.as_str());
        let subjects: Vec<&str> = subjects.collect();
        write!(formatter, "subjects=[{}]", subjects.join(", "))
    }
}

/// The rows of others than marked persons, or of these alone.
impl Screen for Look {
    const NAME: &'static str = "SubjectsExec";

    fn rows(&self, batch: &RecordBatch, schema: &SchemaRef) -> DataFusionResult<RecordBatch> {
        let mut marked: Option<BooleanArray> = None;
        for Column { subject, index, tokens } in &self.columns {
            let ids = batch.columns().get(*index).ok_or_else(|| {
                DataFusionError::Internal("a column of persons was not read".into())
            })?;
            let found = self.tokens.find(subject, ids, tokens)?;
            marked = Some(match marked {
                Some(before) => or(&before, &found)?,
                None => found,
            });
        }
        let shown = match (marked, self.shown) {
            (Some(marked), Shown::Others) => not(&marked)?,
            (Some(marked), Shown::Marked) => marked,
            (None, _) => {
                return Err(DataFusionError::Internal("no column of persons was read".into()));
            }
        };
        let wanted: Vec<usize> = (0..self.width).collect();
        screen::kept(batch, &shown, &wanted, schema)
    }
}
