//! What the values of a column are looked up in, as keys of values: so a reference reads new files
//! alone.
//!
//! Of each file of the checked table the different values of the column are kept as keys, with the
//! number of rows that have them, as those of repeated values are ([`keys`]). Where the reference
//! asks for a column of a table that is a list of files, `SELECT column FROM table`, the keys of
//! that column are kept for each of its files too; any other query is asked each time, and gives
//! keys of its rows. A row fails whose key none of these has, which is counted without reading
//! anything that was read before.
//!
//! Both sides are cast to the type in which SQL compares them; whole numbers, texts, truth values,
//! dates and times are looked up so, where that is sure to mean the same. All else is joined, and
//! so is what has more rows than keys are kept of, and a table that is looked up in itself, which
//! one statement reads at one version.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use catalog::check_states::CheckStates;
use catalog::{FILE, ObjectName, TableFiles};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{AggregateUDF, Expr, LogicalPlan, LogicalPlanBuilder, cast};
use udfs::quality::value_keys::{KeySecret, ValueKeys};

use super::aggregation::resolved;
use super::check::Shape;
use super::keys::{self, KEYS_MAX, Sets};
use super::owners::{Reading, seen};
use super::part;
use super::partial::{self, Known};
use super::query::Item;
use super::run::{files, one_row};
use crate::dialect::folded;
use crate::error::Result;
use crate::rights::Columns;
use crate::session::StatementContext;
use crate::session::run::Run;

/// The name of the rows that have the values.
const ROWS: &str = "referenced";

/// What a column's values are looked up in.
#[derive(Debug)]
pub(crate) struct Referenced {
    /// The type in which they are compared.
    kind: DataType,
    /// Whether the column is cast to it.
    is_cast: bool,
    secret: Arc<KeySecret>,
    /// How many keys may be held.
    room: usize,
    rows: Rows,
    /// Under which what is known of files is kept.
    key: String,
}

/// The rows that have the values.
#[derive(Debug)]
enum Rows {
    /// A column of a table's files.
    Files(Arc<TableFiles>, String),
    /// A query of one column.
    Query(LogicalPlan),
}

impl Referenced {
    /// What a reference of a table looks up; `None` where that is joined.
    ///
    /// # Errors
    /// When the catalog cannot be reached.
    pub(super) async fn of(
        context: &Arc<StatementContext>,
        table: &ObjectName,
        rows: &TableFiles,
        item: &Item,
        secret: &Arc<KeySecret>,
    ) -> Result<Option<Self>> {
        let Shape::Reference { column, .. } = &item.check.shape else { return Ok(None) };
        let Some(Reading { reader, plan }) = &item.reading else { return Ok(None) };
        let schema = rows.rows(&[]).schema();
        let own = column_name(column, table);
        let own = own.and_then(|own| schema.field_with_name(&own).ok().cloned());
        let [looked_up] = plan.schema().fields().as_ref() else { return Ok(None) };
        let Some(kind) =
            own.as_ref().and_then(|own| compared(own.data_type(), looked_up.data_type()))
        else {
            return Ok(None);
        };
        if reader.opened_names().contains(table) {
            return Ok(None);
        }
        // What is more than keys are kept of is read as fast as its keys.
        if keys::rows(reader, plan).await.is_none_or(|rows| rows > KEYS_MAX as usize) {
            return Ok(None);
        }
        let rows = match of_files(reader, plan).await {
            Some((files, column)) => Rows::Files(files, column),
            None => Rows::Query(plan.clone()),
        };
        let about = match &rows {
            Rows::Files(files, column) => {
                let schema = files.rows(&[]).schema();
                let field = schema.field_with_name(column)?;
                format!("{} {column:?} {}", files.definition(), field.data_type())
            }
            Rows::Query(_) => String::new(),
        };
        let about = ["referenced".to_owned(), about, kind.to_string(), secret.id().to_owned()];
        let partitions = context.engine().limits().target_partitions.max(1);
        Ok(Some(Self {
            is_cast: own.is_some_and(|own| *own.data_type() != kind),
            kind,
            secret: Arc::clone(secret),
            room: (KEYS_MAX as usize).saturating_mul(partitions),
            rows,
            key: part::key(&about, &item.expectation.check),
        }))
    }

    /// The checked table's column as it is looked up.
    pub(super) fn cast(&self, column: &str) -> String {
        match self.is_cast {
            true => format!("arrow_cast({column}, '{}')", self.kind),
            false => column.to_owned(),
        }
    }

    /// The files whose keys are kept.
    pub(super) fn files(&self) -> &[String] {
        match &self.rows {
            Rows::Files(files, _) => files.ids(),
            Rows::Query(_) => &[],
        }
    }

    /// Under which what is known of them is kept.
    pub(super) fn key(&self) -> &String {
        &self.key
    }

    fn state<'a>(&self, file: &str, states: &'a CheckStates) -> Option<&'a ScalarValue> {
        states.get(file, &self.key)
    }

    /// How many keys the files have, as far as that is known.
    pub(super) fn key_count(&self, states: &CheckStates) -> u64 {
        let states = self.files().iter().filter_map(|id| self.state(id, states));
        states.filter_map(keys::count).fold(0, u64::saturating_add)
    }

    /// How many of the files are not known.
    pub(super) fn to_read(&self, states: &CheckStates) -> usize {
        self.unknown(states).len()
    }

    fn unknown(&self, states: &CheckStates) -> Vec<usize> {
        let files = self.files().iter().enumerate();
        let files = files.filter(|(_, id)| self.state(id, states).is_none());
        files.map(|(number, _)| number).collect()
    }

    /// The names of the kept keys of those files that are known, and how many keys they are.
    pub(super) fn kept(&self, states: &CheckStates) -> Vec<(String, u64)> {
        let files = self.files().iter();
        let kept = files.filter_map(|id| {
            let count = self.state(id, states).and_then(keys::count)?;
            Some((keys::name(id, &self.key), count))
        });
        kept.collect()
    }

    /// Takes a file whose keys are gone for one that is not known.
    pub(super) fn forget_gone(&self, known: &mut Known) {
        for id in self.files() {
            if !known.sets.has(&keys::name(id, &self.key)) {
                known.states.forget(id, &self.key);
            }
        }
    }

    /// Reads what is not known; the names of all keys.
    ///
    /// # Errors
    /// When it cannot be read, or there are more keys than may be held.
    pub(super) async fn read(&self, run: &Run, known: &mut Known) -> Result<Vec<String>> {
        let (files, column) = match &self.rows {
            Rows::Query(plan) => {
                let column = Column::new(Some(ROWS), plan.schema().field(0).name());
                let rows = provider_as_source(seen(plan.clone()));
                let rows = LogicalPlanBuilder::scan(ROWS, rows, None)?;
                let plan = rows.aggregate(Vec::<Expr>::new(), [self.keys(column)])?.build()?;
                let found = one_row(run, &plan).await?;
                // It is asked again each time.
                let name = keys::name("", &self.key);
                self.note(run, &mut known.sets, name.clone(), &found, (0, 0))?;
                return Ok(vec![name]);
            }
            Rows::Files(files, column) => (files, column),
        };
        let unknown = self.unknown(&known.states);
        if !unknown.is_empty() {
            let rows = provider_as_source(files.rows(&unknown));
            let rows = LogicalPlanBuilder::scan(ROWS, rows, None)?;
            let at = |name: &str| Column::new(Some(ROWS), name);
            let groups = (unknown.len() > 1).then(|| Expr::Column(at(FILE)));
            let plan = rows.aggregate(groups, [self.keys(at(column))])?.build()?;
            let found = one_row(run, &plan).await?;
            let by_file = partial::rows_of(&found, &unknown)?;
            self.note_files(run, known, (&unknown, &by_file), &found)?;
        }
        Ok(files.ids().iter().map(|id| keys::name(id, &self.key)).collect())
    }

    fn note_files(
        &self,
        run: &Run,
        known: &mut Known,
        (unknown, rows): (&[usize], &HashMap<usize, usize>),
        found: &RecordBatch,
    ) -> Result<()> {
        let column = found.num_columns().saturating_sub(1);
        for (number, id) in unknown.iter().filter_map(|file| Some((file, self.files().get(*file)?)))
        {
            let name = keys::name(id, &self.key);
            let state = match rows.get(number) {
                Some(row) => self.note(run, &mut known.sets, name, found, (column, *row))?,
                None => known.sets.note(run, name, ValueKeys::none())?,
            };
            known.states.put(id, &self.key, state);
        }
        Ok(())
    }

    fn note(
        &self,
        run: &Run,
        sets: &mut Sets,
        name: String,
        found: &RecordBatch,
        (column, row): (usize, usize),
    ) -> Result<ScalarValue> {
        let value = ScalarValue::try_from_array(found.column(column), row)?;
        sets.note(run, name, value)
    }

    /// The aggregate that gives a column's keys.
    fn keys(&self, column: Column) -> Expr {
        let keys = AggregateUDF::from(ValueKeys::new(Arc::clone(&self.secret), self.room));
        let values = vec![cast(Expr::Column(column), self.kind.clone())];
        let keys = AggregateFunction::new_udf(Arc::new(keys), values, false, None, vec![], None);
        Expr::AggregateFunction(keys)
    }
}

/// The name of a column of a table, as a check writes it; `None` for a field in a column.
fn column_name(written: &str, table: &ObjectName) -> Option<String> {
    let Ok(sqlparser::ast::Expr::Nested(expr)) = super::check::parsed(written) else { return None };
    match *expr {
        sqlparser::ast::Expr::Identifier(name) => Some(folded(&name)),
        sqlparser::ast::Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [of, name] if folded(of) == table.name => Some(folded(name)),
            _ => None,
        },
        _ => None,
    }
}

/// The type in which two types are compared, where equal values have equal keys.
fn compared(own: &DataType, other: &DataType) -> Option<DataType> {
    let is_text =
        |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let both = |is: &dyn Fn(&DataType) -> bool| is(own) && is(other);
    let same = own == other
        && (own.is_temporal() && !matches!(own, DataType::Interval(_) | DataType::Duration(_))
            || matches!(own, DataType::Boolean));
    let kind = match same || both(&DataType::is_integer) || both(&is_text) {
        true => comparison_coercion(own, other)?,
        false => return None,
    };
    (same || kind.is_integer() || is_text(&kind)).then_some(kind)
}

/// The files and the column of a query that is all rows of a column of a table, which its reader
/// may read as it is.
async fn of_files(
    reader: &Arc<StatementContext>,
    plan: &LogicalPlan,
) -> Option<(Arc<TableFiles>, String)> {
    let LogicalPlan::Projection(projection) = plan else { return None };
    let [expr] = projection.expr.as_slice() else { return None };
    let Ok(Expr::Column(column)) = resolved(&expr.clone().unalias_nested().data, &projection.input)
    else {
        return None;
    };
    let mut below = projection.input.as_ref();
    while let LogicalPlan::SubqueryAlias(alias) = below {
        below = alias.input.as_ref();
    }
    let LogicalPlan::TableScan(scan) = below else { return None };
    let source = source_as_provider(&scan.source).ok()?;
    let is_source =
        |name: &ObjectName| reader.opened(name).is_some_and(|opened| Arc::ptr_eq(&opened, &source));
    let name = reader.opened_names().into_iter().find(is_source)?;
    if scan.fetch.is_some()
        || !scan.filters.is_empty()
        || reader.access(&name).await.select != Columns::All
    {
        return None;
    }
    let files = files(reader, &name).await?;
    let schema = files.rows(&[]).schema();
    let found = schema.field_with_name(&column.name).ok()?;
    let planned = plan.schema().field(0);
    (found.data_type() == planned.data_type()).then_some((files, column.name))
}
