//! What PostgreSQL's clients ask besides SQL: `pg_catalog`, PostgreSQL's `information_schema`,
//! functions such as `format_type`, casts such as `'t'::regclass`, and the statements that only
//! concern a session (`BEGIN`, `SET`, `SHOW`).
//!
//! All of it holds for sessions that speak PostgreSQL only. The catalog's tables are made of what
//! the principal sees; what describes PostgreSQL itself (its types, its operators) is a copy of a
//! fresh PostgreSQL's. A statement over catalog tables is read by PostgreSQL's grammar and
//! rewritten before it is planned, over the same catalog and past the same allow-list as any other.

pub mod control;
mod empty;
mod facts;
mod functions;
mod information;
mod oids;
pub mod parameters;
mod read;
mod relations;
mod rewrite;
pub mod types;

use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use catalog::ObjectName;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::session_state::SessionState;
use datafusion_pg_catalog::pg_catalog::PgCatalogStaticTables;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;

use crate::error::{Error, Result};
use crate::session::StatementContext;

pub(crate) use functions::register;
pub use parameters::PgSession;
pub(crate) use read::parse;

/// The schema of PostgreSQL's own tables.
pub const PG_CATALOG: &str = "pg_catalog";

/// What all sessions that speak PostgreSQL share; made when the first of them asks.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    facts: OnceLock<Result<PgCatalogStaticTables>>,
    types: OnceLock<Result<RecordBatch>>,
    base: OnceLock<Result<SessionState>>,
    rules: OnceLock<PostgresCompatibilityParser>,
    oids: oids::Oids,
}

impl Shared {
    /// What is true of every PostgreSQL.
    fn facts(&self) -> Result<&PgCatalogStaticTables> {
        let made = self.facts.get_or_init(|| Ok(PgCatalogStaticTables::try_new()?));
        made.as_ref().map_err(Error::clone)
    }

    /// What statements start from, made of what other statements start from.
    ///
    /// # Errors
    /// When PostgreSQL's facts cannot be read.
    pub(crate) fn base(&self, plain: &SessionState) -> Result<&SessionState> {
        let made = self.base.get_or_init(|| functions::base(self, plain));
        made.as_ref().map_err(Error::clone)
    }

    /// PostgreSQL's types.
    fn types(&self) -> Result<&RecordBatch> {
        let made = self.types.get_or_init(|| facts::types(self.facts()?));
        made.as_ref().map_err(Error::clone)
    }

    fn rules(&self) -> &PostgresCompatibilityParser {
        self.rules.get_or_init(PostgresCompatibilityParser::new)
    }
}

/// Opens a table of `pg_catalog` or of PostgreSQL's `information_schema`; `None` for other names.
///
/// # Errors
/// When the warehouse cannot be read.
pub(crate) async fn open(
    context: &Arc<StatementContext>,
    name: &ObjectName,
) -> Result<Option<Arc<dyn TableProvider>>> {
    if !context.speaks_postgres() {
        return Ok(None);
    }
    let batch = match name.schema.as_str() {
        PG_CATALOG => match relations::table(context, &name.name).await? {
            Some(batch) => batch,
            None => return fixed(context, &name.name),
        },
        "information_schema" => match information::table(context, &name.name).await? {
            Some(batch) => batch,
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let schema = batch.schema();
    table(schema, vec![batch]).map(Some)
}

fn table(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}

/// A table that is the same for everybody.
fn fixed(context: &Arc<StatementContext>, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let facts = context.engine().postgres().facts()?;
    if name == "pg_type" {
        let types = context.engine().postgres().types()?;
        return table(types.schema(), vec![types.clone()]).map(Some);
    }
    if let Some(source) = facts::filled(facts, name) {
        return table(source.schema(), source.data().to_vec()).map(Some);
    }
    match facts::unfilled(facts, name) {
        Some(source) => {
            let nothing = RecordBatch::new_empty(source.schema());
            table(source.schema(), vec![nothing]).map(Some)
        }
        None => Ok(None),
    }
}
