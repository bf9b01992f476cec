//! The principal's catalog: every table that a statement can name comes from here.
//!
//! Security by construction: a raw provider has no name that the principal can reach; what is
//! handed out is guarded here, so that CTEs, subqueries, views, prepared statements and
//! INSERT … SELECT are all covered. Views run as the caller.

use std::sync::Arc;

use async_trait::async_trait;
use catalog::ObjectName;
use catalog::policy::Privilege;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::datasource::ViewTable;
use datafusion::error::Result as DataFusionResult;
use futures::future::BoxFuture;

use crate::consent::governed;
use crate::engine::CATALOG;
use crate::error::{Class, Error, Result};
use crate::parse::parse_query;
use crate::pii::{self, Reader, Shown};
use crate::rights::Columns;
use crate::session::folders;
use crate::session::guard::{WriteOnly, narrowed};
use crate::session::plan::StatementContext;
use crate::{pg, policy, private, subject, system};

/// The hidden schema in which unqualified names are resolved along the search path.
pub const SEARCH_PATH: &str = "search_path";

/// Views may stand on views this deep.
const VIEW_DEPTH_MAX: usize = 16;

/// The one catalog, as a list, for one statement of one principal.
#[derive(Debug)]
pub(crate) struct StatementCatalog {
    context: Arc<StatementContext>,
}

impl StatementCatalog {
    /// The catalog that a statement sees.
    pub(crate) fn new(context: Arc<StatementContext>) -> Self {
        Self { context }
    }
}

impl CatalogProviderList for StatementCatalog {
    fn register_catalog(
        &self,
        _name: String,
        _catalog: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.into()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(Self::new(Arc::clone(&self.context))) as _)
    }
}

impl CatalogProvider for StatementCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.context.schemas()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let known = name == SEARCH_PATH
            || self.context.may_see(name)
            || (name == pg::PG_CATALOG && self.context.speaks_postgres());
        known.then(|| {
            Arc::new(StatementSchema { context: Arc::clone(&self.context), name: name.into() }) as _
        })
    }
}

#[derive(Debug)]
struct StatementSchema {
    context: Arc<StatementContext>,
    name: String,
}

#[async_trait]
impl SchemaProvider for StatementSchema {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let schemas = match self.name.as_str() {
            SEARCH_PATH => self.context.search_path(),
            schema => vec![schema.to_owned()],
        };
        for schema in schemas {
            let object = ObjectName::new(&schema, name);
            if let Some(table) = open(&self.context, &object).await? {
                return Ok(Some(table));
            }
        }
        let written = match self.name.as_str() {
            SEARCH_PATH => name.to_owned(),
            schema => format!("{schema}.{name}"),
        };
        self.context.missed(written);
        Ok(None)
    }

    fn table_exist(&self, _name: &str) -> bool {
        false
    }
}

/// Opens what the principal sees under a name; one statement sees one version of a table.
///
/// # Errors
/// When the table or view cannot be opened.
pub(crate) fn open<'a>(
    context: &'a Arc<StatementContext>,
    name: &'a ObjectName,
) -> BoxFuture<'a, Result<Option<Arc<dyn TableProvider>>>> {
    // A view opens the tables it stands on, so the future holds itself.
    Box::pin(open_now(context, name))
}

async fn open_now(
    context: &Arc<StatementContext>,
    name: &ObjectName,
) -> Result<Option<Arc<dyn TableProvider>>> {
    if let Some(known) = context.opened(name) {
        return Ok(Some(known));
    }
    if let Some(table) = pg::open(context, name).await? {
        return Ok(Some(table));
    }
    if system::is_system(&name.schema) {
        return system::open(context, name).await;
    }
    if !context.may_see(&name.schema) {
        return Ok(None);
    }
    let access = context.access(name).await;
    let target = access.insert && context.writes_to(name);
    if access.select == Columns::None && !target {
        // Who may only write to it knows that it is there.
        return match access.is_any() {
            true => Err(context.rights().no_change(Privilege::Select, name)),
            // A damaged definition is told to those who would see it.
            false if context.rights().granted_access(name).is_any() => {
                context.engine().catalog().object(name).await?;
                Ok(None)
            }
            false => Ok(None),
        };
    }
    let (engine, version) = (context.engine(), context.version_of(name));
    let reader = Reader::Statement(context.as_ref());
    let opened = match context.opening().reads_consents() {
        true => pii::open_now(engine, name, version, reader).await,
        false => pii::open(engine, name, version, reader).await,
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => return Err(unopened(context, name, error).await),
    };
    let provider = match opened {
        None => return Ok(None),
        Some(Shown::Table(table)) => {
            // Who is not to be seen must not count as somebody who has not withdrawn, nor must who
            // withdrew long ago.
            let table = match context.opening().reads_consents() {
                true => table,
                false => {
                    let table = subject::guard::readable(context, name, table).await?;
                    policy::retention::readable(context, name, table).await?
                }
            };
            let unread = target || context.opening().is_for_columns();
            let table = governed(context, name, table, unread).await?;
            policy::guarded(context, name, table).await?
        }
        Some(Shown::View { sql }) => {
            policy::no_policy_on_view(context, name).await?;
            private::no_privacy_policy_on_view(context, name).await?;
            open_view(context, name, &sql).await?
        }
    };
    let guarded = match target && access.select != Columns::All {
        true => {
            let principal = context.rights().name();
            Some(Arc::new(WriteOnly::new(name, principal, provider.as_ref())) as _)
        }
        false => narrowed(provider, &access.select)?,
    };
    let guarded = match guarded {
        Some(provider) => Some(private::guarded(context, name, provider, target).await?),
        None => None,
    };
    if let Some(provider) = &guarded {
        context.remember(name, provider);
    }
    Ok(guarded)
}

/// Why a table cannot be opened. Whom a policy keeps from a part of it learns no values of rows.
async fn unopened(context: &StatementContext, name: &ObjectName, error: Error) -> Error {
    match policy::binding(context, name).await {
        Ok(bound) if bound.is_free() => error,
        _ => folders::untold_of_table(error),
    }
}

async fn open_view(
    context: &Arc<StatementContext>,
    name: &ObjectName,
    text: &str,
) -> Result<Arc<dyn TableProvider>> {
    let deeper = context.deeper();
    if deeper.depth() > VIEW_DEPTH_MAX {
        return Err(Error::invalid_hint(
            format!("view {name} stands on views more than {VIEW_DEPTH_MAX} deep, or on itself"),
            "define it over tables",
        ));
    }
    let query = parse_query(text)?;
    match Box::pin(deeper.plan_query(query)).await {
        Ok((_, plan)) => Ok(Arc::new(ViewTable::new(plan, Some(text.to_owned())))),
        Err(error) => Err(unreadable(context, name, error).await),
    }
}

/// Why a view cannot be read. Who does not own it learns neither the names in its text nor
/// whether they exist.
async fn unreadable(context: &Arc<StatementContext>, name: &ObjectName, error: Error) -> Error {
    let told = !matches!(error.class(), Class::NotFound | Class::Invalid | Class::Denied);
    let object = context.engine().catalog().object(name).await.unwrap_or_default();
    let owner = object.as_ref().and_then(|object| object.owner.as_deref());
    if told || context.rights().sees_definition(name, owner) {
        return error;
    }
    Error::Denied {
        principal: context.rights().name().to_owned(),
        action: format!("read view {name}, which runs with the rights of who asks"),
        hint: Some("ask its owner which tables it reads, and for SELECT on them".into()),
    }
}
