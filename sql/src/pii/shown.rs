//! Tables as they are shown: pseudonyms in place of personal identifiers, and the table that tells
//! what they stand for.
//!
//! Both are plans over the rows of the files behind a [`Barrier`]: conditions on a pseudonym are
//! asked of the pseudonym, statistics and error texts of the files do not come out. The key serves
//! whoever reads, as a policy's does; who may say so was asked when the table was created. Rows of
//! persons whom nobody may see, and rows whose time is over, are left out of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use catalog::{ObjectName, Opened, Pii};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, lit};
use udfs::privacy::keyed::Keyed;
use udfs::privacy::pseudonymize::Pseudonymize;
use udfs::privacy::{KeyRing, KeySet, KeyUse, UsableKey};

use crate::engine::Engine;
use crate::error::{CatalogError, Error, Result};
use crate::key::{UsedKey, bind};
use crate::policy::barrier::Barrier;
use crate::policy::retention;
use crate::session::StatementContext;
use crate::session::plan::analyzed;
use crate::subject::guard;

/// What a name opens.
#[derive(Debug)]
pub(crate) enum Shown {
    /// A table, of which nobody gets more than this.
    Table(Arc<dyn TableProvider>),
    /// A view's text.
    View {
        /// The query.
        sql: String,
    },
}

/// Who reads: that decides whose rows a table of identifiers leaves out, as the table does that
/// they are of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reader<'a> {
    /// The engine, which knows what it may do with all rows.
    Engine,
    /// A statement.
    Statement(&'a StatementContext),
    /// A request of a person, which reads restricted persons too.
    Request(&'a StatementContext),
}

/// Opens a table or view as it is shown; `None` when there is none of that name.
///
/// # Errors
/// When it cannot be opened, or its pseudonyms cannot be made.
pub(crate) async fn open(
    engine: &Engine,
    name: &ObjectName,
    version: Option<u64>,
    reader: Reader<'_>,
) -> Result<Option<Shown>> {
    let opened = engine.catalog().open_table(name, version, engine.base()).await?;
    shown(engine, name, opened, reader).await
}

/// The same with the files that there are at this moment.
///
/// # Errors
/// As [`open`].
pub(crate) async fn open_now(
    engine: &Engine,
    name: &ObjectName,
    version: Option<u64>,
    reader: Reader<'_>,
) -> Result<Option<Shown>> {
    let opened = engine.catalog().open_table_now(name, version, engine.base()).await?;
    shown(engine, name, opened, reader).await
}

async fn shown(
    engine: &Engine,
    name: &ObjectName,
    opened: Option<Opened>,
    reader: Reader<'_>,
) -> Result<Option<Shown>> {
    let (rows, pii, identifiers_of) = match opened {
        None => return Ok(None),
        Some(Opened::Table(table)) => return Ok(Some(Shown::Table(table))),
        Some(Opened::View { sql }) => return Ok(Some(Shown::View { sql })),
        Some(Opened::Identified { rows, pii, identifiers_of }) => (rows, pii, identifiers_of),
    };
    let of = identifiers_of.as_ref().unwrap_or(name);
    let identified = Identified::new(engine, of, &pii).await?;
    if let Reader::Statement(context) | Reader::Request(context) = reader {
        identified.note(context, name);
        if identifiers_of.is_some() {
            context.shows_identifiers(name, of, &pii);
        }
    }
    let table = match identifiers_of.is_some() {
        false => identified.pseudonyms(rows)?,
        true => identified.identifiers(name, rows, reader).await?,
    };
    Ok(Some(Shown::Table(table)))
}

/// Checks that a table that is going to be defined so can be shown.
///
/// # Errors
/// When a column is not there or holds no identifiers, or the key cannot be used.
pub(crate) async fn check(
    engine: &Engine,
    name: &ObjectName,
    pii: &Pii,
    rows: Arc<dyn TableProvider>,
) -> Result<()> {
    let identified = Identified::new(engine, name, pii).await?;
    identified.pseudonyms(Arc::clone(&rows))?;
    let apart = ObjectName::new(&name.schema, &pii.table);
    identified.identifiers(&apart, rows, Reader::Engine).await?;
    Ok(())
}

/// A table whose identifiers are kept apart, with what stands in for them.
struct Identified<'a> {
    engine: &'a Engine,
    name: &'a ObjectName,
    pii: &'a Pii,
    key: KeyRing,
    function: ScalarUDF,
}

impl<'a> Identified<'a> {
    async fn new(engine: &'a Engine, name: &'a ObjectName, pii: &'a Pii) -> Result<Self> {
        let (key_name, generation) = bind::parts(&pii.key)?;
        let key = match engine.catalog().key_ring(key_name, generation).await {
            Err(CatalogError::NotFound { .. }) => {
                return Err(unusable(name, &format!("key {key_name} does not exist")));
            }
            Err(CatalogError::Invalid { what, .. }) => return Err(unusable(name, &what)),
            other => other?,
        };
        // What was made under the one that had its name joins with none of what this one makes.
        let key = match &pii.key_id {
            Some(id) => {
                let mut generations = key.generations();
                generations.find(|one| one.id() == id.as_str()).cloned().map(KeyRing::from)
            }
            None => Some(key),
        };
        let Some(key) = key else {
            return Err(unusable(name, &format!("key {} is another one by now", pii.key)));
        };
        let usable = UsableKey { ring: key.clone(), uses: BTreeSet::from([KeyUse::Pseudonymize]) };
        let keys = KeySet::new(BTreeMap::from([(pii.key.clone(), usable)]), None);
        let function = ScalarUDF::new_from_impl(Pseudonymize::bound(Arc::new(keys)));
        Ok(Self { engine, name, pii, key, function })
    }

    /// Tells the statement's record what was applied to it.
    fn note(&self, context: &StatementContext, name: &ObjectName) {
        let (key, _) = bind::parts(&self.pii.key).unwrap_or((self.pii.key.as_str(), None));
        context.uses_key(UsedKey {
            name: key.to_owned(),
            id: self.key.newest().id().to_owned(),
            key_use: KeyUse::Pseudonymize,
        });
        context.used().policies.insert(format!("pii on {name}"));
    }

    fn scan(
        name: &ObjectName,
        rows: Arc<dyn TableProvider>,
    ) -> Result<(LogicalPlanBuilder, Arc<DFSchema>)> {
        let at = TableReference::bare(name.name.clone());
        let scan = LogicalPlanBuilder::scan(at, provider_as_source(rows), None)?;
        let schema = Arc::clone(scan.schema());
        Ok((scan, schema))
    }

    fn check_columns(&self, schema: &DFSchema) -> Result<()> {
        for column in &self.pii.columns {
            let Some(field) = schema.fields().iter().find(|field| field.name() == column) else {
                let known = schema.fields().iter().map(|field| field.name().as_str());
                return Err(Error::unknown("column", column, known.collect::<Vec<_>>()));
            };
            if !is_identifier(field.data_type()) {
                return Err(Error::invalid_hint(
                    format!(
                        "column {column} of {} is {}, and pseudonyms are of text or whole numbers",
                        self.name,
                        field.data_type()
                    ),
                    format!("give it another type: CREATE EXTERNAL TABLE … ({column} VARCHAR, …)"),
                ));
            }
        }
        Ok(())
    }

    /// The columns of the table as everybody sees them.
    fn columns(&self, schema: &DFSchema) -> Vec<Expr> {
        let columns = schema.iter().map(|(relation, field)| {
            let own = Expr::Column(Column::from((relation, field)));
            match self.pii.has(field.name()) {
                true => self
                    .function
                    .call(vec![own, lit(self.pii.key.as_str())])
                    .alias(field.name().as_str()),
                false => own,
            }
        });
        columns.collect()
    }

    fn barrier(&self, plan: LogicalPlan, told: String) -> Result<Barrier> {
        let plan = analyzed(self.engine.base(), plan)?;
        let columns: BTreeSet<String> = self.pii.columns.iter().cloned().collect();
        Ok(Barrier::new(plan, columns.clone(), [told])?.with_stand_ins(columns))
    }

    /// The table with pseudonyms in place of its identifiers.
    fn pseudonyms(&self, rows: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
        let (scan, schema) = Self::scan(self.name, rows)?;
        self.check_columns(&schema)?;
        let plan = scan.project(self.columns(&schema))?.build()?;
        let columns = self.pii.columns.join(", ");
        let told = format!("pseudonyms of {columns} under key {}", self.pii.key);
        Ok(Arc::new(self.barrier(plan, told)?))
    }

    /// The table that tells what they stand for: each combination of a row's identifiers once, each
    /// beside its pseudonym.
    async fn identifiers(
        &self,
        name: &ObjectName,
        rows: Arc<dyn TableProvider>,
        reader: Reader<'_>,
    ) -> Result<Arc<dyn TableProvider>> {
        let (scan, schema) = Self::scan(self.name, rows)?;
        self.check_columns(&schema)?;
        let mut columns = self.columns(&schema);
        let aside: Vec<String> =
            (0..self.pii.columns.len()).map(|at| free(&format!("raw {at}"), &schema)).collect();
        for (column, aside) in self.pii.columns.iter().zip(&aside) {
            columns.push(named(&schema, column)?.alias(aside.as_str()));
        }
        let told = format!("identifiers of {}", self.name);
        let wide = self.barrier(scan.project(columns)?.build()?, told.clone())?;
        let wide: Arc<dyn TableProvider> = Arc::new(wide);
        // Of whom the table shows no row is nobody here either.
        let wide = match reader {
            Reader::Engine => wide,
            Reader::Statement(context) => {
                let wide = guard::readable(context, self.name, wide).await?;
                // Who withdrew long ago must not count as somebody who has not.
                match context.opening().reads_consents() {
                    true => wide,
                    false => retention::readable(context, self.name, wide).await?,
                }
            }
            Reader::Request(context) => guard::with_restricted(context, self.name, wide).await?,
        };
        let (scan, schema) = Self::scan(name, wide)?;
        let mut columns = Vec::with_capacity(2 * aside.len());
        let mut is_there: Option<Expr> = None;
        for (column, aside) in self.pii.columns.iter().zip(&aside) {
            let raw = named(&schema, aside)?;
            let known = raw.clone().is_not_null();
            is_there = Some(match is_there {
                Some(before) => before.or(known),
                None => known,
            });
            columns.push(named(&schema, column)?.alias(Pii::pseudonym_of(column)));
            columns.push(raw.alias(column.as_str()));
        }
        let scan = match is_there {
            Some(condition) => scan.filter(condition)?,
            None => scan,
        };
        let plan = scan.project(columns)?.distinct()?.build()?;
        let plan = analyzed(self.engine.base(), plan)?;
        let names = plan.schema().fields().iter().map(|field| field.name().clone());
        let all: BTreeSet<String> = names.collect();
        // Each pseudonym stands for one identifier, which is what it is.
        Ok(Arc::new(Barrier::new(plan, all.clone(), [told])?.with_stand_ins(all)))
    }
}

/// A column of a plan by its name alone.
fn named(schema: &DFSchema, name: &str) -> Result<Expr> {
    let found = schema.iter().find(|(_, field)| field.name() == name);
    match found {
        Some((relation, field)) => Ok(Expr::Column(Column::from((relation, field)))),
        None => Err(Error::Internal(format!("a plan without its column {name}"))),
    }
}

/// A name that no column has.
fn free(name: &str, schema: &DFSchema) -> String {
    let mut free = name.to_owned();
    while schema.fields().iter().any(|field| *field.name() == free) {
        free.insert_str(0, "raw ");
    }
    free
}

fn is_identifier(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => values.is_string(),
        other => other.is_string() || other.is_integer(),
    }
}

fn unusable(name: &ObjectName, why: &str) -> Error {
    Error::invalid_hint(
        format!("{name} cannot show pseudonyms: {why}"),
        "CREATE OR REPLACE EXTERNAL TABLE with a key that is there makes other pseudonyms",
    )
}
