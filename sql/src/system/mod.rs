//! The `system` and `information_schema` schemas: what exists and runs, as tables.
//!
//! They show a principal what it may see, and no more. DataFusion's own information schema is
//! off: it would show other principals' tables and every configuration value.

mod accounts;
mod audit;
mod batches;
mod checks;
mod keys;
mod model_versions;
mod policies;
mod privacy;
mod processing;
mod sessions;
mod subjects;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use catalog::ObjectName;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;

use crate::consent;
use crate::error::{Error, Result};
use crate::parse::Listing;
use crate::session::StatementContext;

/// The schemas made here.
pub const SCHEMAS: [&str; 2] = ["information_schema", "system"];

pub(crate) use self::batches::{batch, optional_texts, texts};

const SYSTEM: [&str; 28] = [
    "audit",
    "audit_faults",
    "checks",
    "columns",
    "consents",
    "erasures",
    "expectations",
    "functions",
    "grants",
    "keys",
    "model_versions",
    "models",
    "policies",
    "privacy_budget",
    "privacy_policies",
    "processing_activities",
    "purposes",
    "queries",
    "roles",
    "schemas",
    "sessions",
    "settings",
    "subject_keys",
    "subjects",
    "tables",
    "tags",
    "tokens",
    "users",
];
const INFORMATION_SCHEMA: [&str; 3] = ["columns", "schemata", "tables"];

/// Whether a schema is made here.
pub fn is_system(schema: &str) -> bool {
    SCHEMAS.contains(&schema)
}

/// The tables of such a schema.
pub fn table_names(schema: &str) -> &'static [&'static str] {
    if schema == "system" { &SYSTEM } else { &INFORMATION_SCHEMA }
}

/// What a `SHOW` statement means.
pub(crate) fn listing_query(listing: Listing) -> &'static str {
    match listing {
        Listing::Models => {
            "SELECT schema, name, model_type, default_version AS version, versions, created, \
             metric, metric_value FROM system.models ORDER BY schema, name"
        }
        Listing::Tables => {
            "SELECT schema, name, kind FROM system.tables \
             WHERE schema NOT IN ('system', 'information_schema') ORDER BY schema, name"
        }
        Listing::Users => "SELECT name, roles FROM system.users ORDER BY name",
        Listing::Roles => "SELECT name, built_in FROM system.roles ORDER BY name",
        Listing::Keys => {
            "SELECT name, source, generation, id, state FROM system.keys \
             ORDER BY name, generation DESC"
        }
        Listing::Schemas => "SELECT name FROM system.schemas ORDER BY name",
        Listing::Functions => {
            "SELECT name, kind, syntax, description, section FROM system.functions \
             ORDER BY own DESC, name"
        }
        Listing::Sessions => "SELECT * FROM system.sessions ORDER BY started, id",
        Listing::Tokens => "SELECT * FROM system.tokens ORDER BY user_name, name",
    }
}

/// The columns of the two tables that list columns: to open them for their own columns would open
/// them again, without end.
pub(crate) fn columns_of_columns(schema: &str, name: &str) -> Option<SchemaRef> {
    let empty = match (schema, name) {
        ("system", "columns") => batches::columns_of(&[]),
        ("information_schema", "columns") => batches::information_columns_of(&[]),
        _ => return None,
    };
    empty.ok().map(|batch| batch.schema())
}

/// Makes a table of these schemas for a statement.
///
/// # Errors
/// When the warehouse cannot be read.
pub(crate) async fn open(
    context: &Arc<StatementContext>,
    name: &ObjectName,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let session = context.session();
    // What is made of the record, or of all that models hold, is made when it is read.
    match (name.schema.as_str(), name.name.as_str()) {
        ("system", "audit") => return audit::audit(context).map(Some),
        ("system", "audit_faults") => return audit::faults(context).map(Some),
        ("system", "processing_activities") => return processing::activities(context).map(Some),
        ("system", "model_versions") => return model_versions::versions(context).map(Some),
        _ => {}
    }
    let batch = match (name.schema.as_str(), name.name.as_str()) {
        ("system", "tables") => batches::tables(session).await?,
        ("system", "columns") => batches::columns(session).await?,
        ("system", "schemas") => batches::schemas(session).await?,
        ("system", "functions") => batches::functions(session).await?,
        ("system", "users") => accounts::users(session).await?,
        ("system", "roles") => accounts::roles(session).await?,
        ("system", "grants") => accounts::grants(session).await?,
        ("system", "keys") => keys::keys(session).await?,
        ("system", "expectations") => checks::expectations(context).await?,
        ("system", "checks") => checks::checks(context).await?,
        ("system", "policies") => policies::policies(context).await?,
        ("system", "tags") => policies::tags(context).await?,
        ("system", "purposes") => consent::tables::purposes(context).await?,
        ("system", "consents") => consent::tables::consents(context).await?,
        ("system", "models") => batches::models(context).await?,
        ("system", "privacy_budget") => privacy::budget(context).await?,
        ("system", "privacy_policies") => privacy::policies(context).await?,
        ("system", "queries") => batches::queries(session).await?,
        ("system", "sessions") => sessions::sessions(session).await?,
        ("system", "tokens") => sessions::tokens(session).await?,
        ("system", "subjects") => subjects::subjects(context).await?,
        ("system", "subject_keys") => subjects::keys(context).await?,
        ("system", "erasures") => subjects::erasures(context).await?,
        ("system", "settings") => batches::settings(session)?,
        ("information_schema", "tables") => batches::information_tables(session).await?,
        ("information_schema", "columns") => batches::information_columns(session).await?,
        ("information_schema", "schemata") => batches::information_schemata(session).await?,
        _ => return Ok(None),
    };
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(Error::from)?;
    Ok(Some(Arc::new(table)))
}
