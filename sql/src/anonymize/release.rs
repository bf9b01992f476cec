//! `release => 'name'`: what is released is compared with all that was released under the name, and
//! of the tables that the query reads, and goes on record, before a row of it is given.
//!
//! Of releases there are keyed tokens and numbers alone ([`catalog::releases`]): of each class, and
//! of what its rows show beside it. So a row that came for another is seen, too, where the sizes of
//! classes are the same.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use catalog::releases::{
    CHANGES_MAX, RELEASES_MAX, ROWS_MAX, Refused, Release, ReleaseTokens, Why,
};
use catalog::{Catalog, ObjectName};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use udfs::fuzzy::stop::Stop;
use udfs::privacy::anonymize::Outcome;

use super::options::{Asked, Origin};
use super::table::Kept;
use crate::error::{Error, Result};
use crate::session::StatementContext;

/// Characters of a release's name.
const NAME_CHARS_MAX: usize = 64;
/// Memory that a different row takes on its way to the record.
const BYTES_PER_ROW: usize = 160;

/// The statement that releases.
pub(super) struct Releaser(Arc<StatementContext>);

impl Releaser {
    /// That of a context.
    pub fn new(context: &Arc<StatementContext>) -> Self {
        Self(Arc::clone(context))
    }

    /// A release of a query's rows under a name.
    ///
    /// # Errors
    /// When it is no name.
    pub fn named(&self, name: &str, query: &LogicalPlan) -> Result<Releasing> {
        if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) {
            return Err(Error::invalid_hint(
                format!("a release's name has 1 to {NAME_CHARS_MAX} characters"),
                "write release => 'weekly'",
            ));
        }
        // A view's plan is held by the statement that it is a part of, which it must not hold.
        let catalog = Arc::clone(self.0.engine().catalog());
        let maker = self.0.rights().name().to_owned();
        Ok(Releasing { name: name.to_owned(), maker, tables: self.tables(query)?, catalog })
    }

    /// The tables that a query reads, below views.
    fn tables(&self, query: &LogicalPlan) -> Result<BTreeSet<ObjectName>> {
        let Self(context) = self;
        let opened = context.opened_names();
        let mut tables = BTreeSet::new();
        query.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let provider = source_as_provider(&scan.source)?;
                let is_it = |name: &&ObjectName| {
                    let standing = context.standing_for(name);
                    standing.iter().any(|known| Arc::ptr_eq(known, &provider))
                };
                tables.extend(opened.iter().find(is_it).cloned());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(tables)
    }
}

impl fmt::Debug for Releaser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Releaser({})", self.0.rights().name())
    }
}

/// A release that is going to be made.
#[derive(Clone)]
pub(super) struct Releasing {
    name: String,
    maker: String,
    /// The tables that its query reads.
    tables: BTreeSet<ObjectName>,
    catalog: Arc<Catalog>,
}

impl fmt::Debug for Releasing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, maker, tables, catalog: _ } = self;
        write!(formatter, "Releasing({name:?} by {maker:?} of {tables:?})")
    }
}

impl Releasing {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Memory that so many rows take at most while they are compared.
    pub fn bytes(&self, rows: usize) -> usize {
        rows.min(ROWS_MAX).saturating_mul(BYTES_PER_ROW)
    }

    /// Records what is going to be given: these rows, in parts of so many.
    ///
    /// # Errors
    /// When it would tell too much beside an earlier release, cannot be recorded, has too many
    /// different rows, or nobody waits any more.
    pub async fn record(
        &self,
        asked: &Asked,
        outcome: &Outcome,
        kept: &Kept,
        rows: &[u32],
        rows_a_batch: usize,
        stop: &Stop,
    ) -> Result<()> {
        let Self { name, maker, tables, catalog } = self;
        let tokens = catalog.release_tokens().await?;
        let mut release = Release { k: asked.options.criteria.k, ..Release::default() };
        if !rows.is_empty() {
            release.form = Some(tokens.token(&form(asked, outcome)));
        }
        let mut different = 0;
        for rows in rows.chunks(rows_a_batch) {
            stop.check().map_err(DataFusionError::from)?;
            different += add(&mut release, &tokens, asked, &kept.batch(asked, outcome, rows)?)?;
            if different > ROWS_MAX {
                return Err(Error::invalid_hint(
                    format!("release {name} has more than {ROWS_MAX} different rows"),
                    "release fewer columns, or coarser ones",
                ));
            }
        }
        match catalog.record_release(maker, name, tables, &release).await? {
            None => Ok(()),
            Some(refused) => Err(self.refused(&refused)),
        }
    }

    fn refused(&self, refused: &Refused) -> Error {
        let before = match &refused.of {
            None => "an earlier release of its name".to_owned(),
            Some(table) => format!("an earlier release of {table}"),
        };
        let (why, hint) = match refused.why {
            Why::OtherForm => (
                format!("its columns or their levels are others than those of {before}"),
                "give the same columns, hierarchies with the levels of that release alone and a \
                 suppression_limit",
            ),
            Why::Few { classes, k } => (
                format!(
                    "{classes} of its classes differ from those of {before} by fewer than {k} \
                     rows, of whom both together would tell"
                ),
                "release again when more rows have come and gone",
            ),
            Why::Full => (
                format!(
                    "no more can be compared: beside {before} there are as many as {RELEASES_MAX}, \
                     or {CHANGES_MAX} changes of rows between them"
                ),
                "release fewer columns, or coarser ones, of a new table of the rows that are new",
            ),
        };
        let what = format!("release {} is refused: {why}", self.name);
        Error::Execution { what, hint: Some(hint.to_owned()) }
    }
}

/// All that must be the same for two releases to be compared.
fn form(asked: &Asked, outcome: &Outcome) -> String {
    let quasi: Vec<_> = asked.quasi.iter().map(|role| (&role.name, &role.scheme)).collect();
    let sensitive: Vec<&String> = asked.sensitive.iter().map(|role| &role.name).collect();
    let columns: Vec<&String> = asked.schema.fields().iter().map(|field| field.name()).collect();
    format!("{quasi:?} {sensitive:?} {columns:?} {:?}", outcome.levels)
}

/// Adds the rows of a batch; gives how many are unlike all before.
fn add(
    release: &mut Release,
    tokens: &ReleaseTokens,
    asked: &Asked,
    batch: &RecordBatch,
) -> Result<usize> {
    let options = FormatOptions::new().with_display_error(false);
    let (mut labels, mut values) = (Vec::new(), Vec::new());
    for (column, origin) in batch.columns().iter().zip(&asked.origins) {
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
        match origin {
            Origin::Quasi(_) => labels.push((column, formatter)),
            Origin::Kept(_) => values.push((column, formatter)),
        }
    }
    let written = |columns: &[(&ArrayRef, ArrayFormatter<'_>)], row: usize| {
        let mut text = String::new();
        for (column, formatter) in columns {
            // The length says where a value ends, whatever is in it.
            let wrote = match column.is_null(row) {
                true => text.write_str("n;"),
                false => {
                    let value = formatter.value(row).try_to_string()?;
                    write!(text, "{}:{value};", value.len())
                }
            };
            wrote.map_err(|_| Error::Internal("a text cannot be written".into()))?;
        }
        Ok::<String, Error>(text)
    };
    let (mut different, mut last) = (0, (String::new(), None));
    for row in 0..batch.num_rows() {
        // Rows come by class, so that the token of one is made once.
        let label = written(&labels, row)?;
        let class = match last {
            (known, Some(class)) if known == label => class,
            _ => tokens.token(&label),
        };
        let value = tokens.token(&written(&values, row)?);
        let rows = release.classes.entry(class.clone()).or_default();
        let count = rows.entry(value).or_default();
        different += usize::from(*count == 0);
        *count += 1;
        last = (label, Some(class));
    }
    Ok(different)
}
