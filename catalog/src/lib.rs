//! What exists and where: stores, lake tables, definitions, models, keys, users.
//!
//! Architecture invariant: the only crate that touches storage; no SQL text is parsed here and no
//! socket is opened but a store's.
//!
//! A [`Catalog`] is a warehouse (definitions, Delta tables, models, users), any number of lakes
//! (tables over files, each a schema) and named keys. Nothing here knows who asks: `sql` guards
//! what it hands out.

mod append_only;
pub mod audit;
mod bucket;
pub mod budget;
pub mod check_keys;
pub mod check_states;
pub mod checks;
pub mod config;
pub mod delta;
pub mod delta_erasure;
pub mod delta_purge;
pub mod erasures;
mod erasures_seen;
pub mod error;
pub mod hidden_users;
mod inherited;
pub mod keyring;
pub mod keys;
pub mod lake;
pub mod lake_erasure;
mod lakes;
#[cfg(test)]
mod lakes_tests;
pub mod local;
mod new_table;
mod owners;
mod personal_columns;
mod pii;
pub mod policy;
pub mod privacy_policies;
pub mod purposes;
pub mod registry;
pub mod releases;
pub mod retention;
mod revocations;
mod states;
pub mod store;
pub mod subject_copies;
pub mod subject_marks;
pub mod subjects;
pub mod table_erasure;
pub mod tables;
#[cfg(test)]
mod tables_tests;
#[cfg(test)]
mod testing;
pub mod tokens;
pub mod users;
mod warehouse;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use audit::{Audit, AuditConfig, AuditEntry};
pub use bucket::{Versioning, WAREHOUSE_BUCKET};
pub use config::{
    CatalogConfig, Clock, KeyConfig, LakeAccess, LakeConfig, LakeTable, PreviousSecret,
};
pub use erasures_seen::ErasuresSeen;
pub use error::{Class, Error, Result};
pub use lake::files::{FILE, TableFiles};
pub use new_table::NewTable;
pub use pii::{Pii, Seen};
pub use purposes::{
    ConsentPolicy, ConsentSource, Purpose, Purposes, PurposesMoment, SELL_OR_SHARE,
};
pub use registry::model as models;
pub use registry::{
    CreateMode, Definition, Definitions, Kind, ManagedTable, ModelHead, ModelVersion, ObjectName,
    Revision, Spec,
};
pub use states::TableState;
pub use store::{Place, Secret, StoreConfig, Stores};
pub use tables::{Object, Opened, Written};
pub use tokens::TokenRecord;
pub use users::{Accounts, Moment, RoleRecord, UserRecord};

use delta::Tables;
use keyring::Keyring;
use keys::Keys;
use lakes::{LakeSchema, Named};
use policy::Securable;
use registry::{ModelCache, Registry};
use revocations::Revocations;
use warehouse::Warehouse;

/// The schema of the warehouse's own objects.
pub const MAIN: &str = "main";

/// Everything that exists. One a process, shared by all sessions.
pub struct Catalog {
    stores: Arc<Stores>,
    clock: Clock,
    warehouse: Arc<Warehouse>,
    audit: Audit,
    objects: Registry,
    users: Registry,
    tokens: Registry,
    expectations: Registry,
    checks: Registry,
    policies: Registry,
    purposes: Registry,
    inherited: parking_lot::Mutex<inherited::Known>,
    subjects: Registry,
    subject_copies: Registry,
    subject_tokens: tokio::sync::OnceCell<udfs::privacy::SubjectTokens>,
    privacy_policies: Registry,
    budgets: Registry,
    releases: Registry,
    /// The same by the tables that they are made of.
    table_releases: Registry,
    charging: tokio::sync::Mutex<()>,
    revocations: Revocations,
    lakes: BTreeMap<String, LakeSchema>,
    files: lake::Tables,
    /// The same without listings that are used again.
    files_now: lake::Tables,
    freshness: Duration,
    tables: Tables,
    models: ModelCache,
    keys: Keys,
    keyring: Keyring,
    keyring_heads: Registry,
    /// Folders that were retired and are removed, each with whether that was once more.
    swept: parking_lot::Mutex<std::collections::BTreeSet<(String, bool)>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Catalog")
            .field("warehouse", &self.warehouse.place().url.as_str())
            .field("schemas", &self.schemas())
            .finish_non_exhaustive()
    }
}

impl Catalog {
    /// Reads together what every statement needs to know of the warehouse, where that is older
    /// than a second: one after another, each of these listings of a distant store would be waited
    /// for. What cannot be read is told to whoever needs it.
    pub async fn freshen(&self) {
        let registries = [
            &self.objects,
            &self.users,
            &self.policies,
            &self.purposes,
            &self.subjects,
            &self.subject_copies,
            &self.privacy_policies,
        ];
        futures::future::join_all(registries.map(Registry::definitions)).await;
    }

    /// Opens the configured stores.
    ///
    /// A local warehouse folder is made when it is first written to. A warehouse that ignores
    /// conditional writes or refuses to be written is used read-only, and the log says why. A
    /// store that cannot be reached does not keep the catalog from opening.
    ///
    /// # Errors
    /// When a location or a name in the configuration is wrong.
    pub async fn open(config: CatalogConfig) -> Result<Arc<Self>> {
        let stores = Arc::new(Stores::default());
        let place = stores.open(&config.warehouse)?;
        Self::open_at(stores, place, config).await
    }

    /// Opens a catalog whose warehouse is a place that is open already.
    pub(crate) async fn open_at(
        stores: Arc<Stores>,
        place: Place,
        config: CatalogConfig,
    ) -> Result<Arc<Self>> {
        let mut lakes = BTreeMap::new();
        for lake in config.lakes {
            let name = lake.name.clone();
            ObjectName::new(&name, "table").check()?;
            if name == MAIN || name == "system" || name == "information_schema" {
                return Err(Error::invalid(format!("a lake cannot be named {name}")));
            }
            if lakes.insert(name.clone(), LakeSchema::open(&stores, lake)?).is_some() {
                return Err(Error::invalid(format!("two lakes are named {name}")));
            }
        }
        let clock = config.clock;
        let heads = place.child("_attune/heads");
        let users = place.child("_attune/users");
        let tokens = place.child("_attune/tokens");
        let expectations = place.child("_attune/expectations");
        let checks = place.child("_attune/checks");
        let policies = place.child("_attune/policies");
        let purposes = place.child("_attune/purposes");
        let subjects = place.child("_attune/subjects");
        let subject_copies = place.child("_attune/subject_copies");
        let privacy_policies = place.child("_attune/privacy_policies");
        let budgets = place.child("_attune/privacy_budgets");
        let releases = place.child("_attune/releases");
        let table_releases = place.child("_attune/table_releases");
        let revoked = place.child("_attune/revoked");
        let keyring = place.child("_attune/keyring");
        let settings = stores.bucket_settings(&place);
        let warehouse = Arc::new(Warehouse::open(place, settings).await);
        let catalog = Self {
            audit: Audit::start(config.audit, &warehouse, &clock),
            files: lake::Tables::with_fresh(Arc::clone(&stores), config.freshness),
            files_now: lake::Tables::with_fresh(Arc::clone(&stores), Duration::ZERO),
            freshness: config.freshness,
            stores,
            warehouse,
            objects: Registry::new(heads, Arc::clone(&clock)),
            users: Registry::new(users, Arc::clone(&clock)),
            tokens: Registry::new(tokens, Arc::clone(&clock)),
            expectations: Registry::new(expectations, Arc::clone(&clock)),
            checks: Registry::new(checks, Arc::clone(&clock)),
            policies: Registry::new(policies, Arc::clone(&clock)),
            purposes: Registry::new(purposes, Arc::clone(&clock)),
            inherited: parking_lot::Mutex::default(),
            subjects: Registry::new(subjects, Arc::clone(&clock)),
            subject_copies: Registry::new(subject_copies, Arc::clone(&clock)),
            subject_tokens: tokio::sync::OnceCell::new(),
            privacy_policies: Registry::new(privacy_policies, Arc::clone(&clock)),
            budgets: Registry::new(budgets, Arc::clone(&clock)),
            releases: Registry::new(releases, Arc::clone(&clock)),
            table_releases: Registry::new(table_releases, Arc::clone(&clock)),
            charging: tokio::sync::Mutex::default(),
            revocations: Revocations::new(revoked),
            keyring_heads: Registry::new(keyring, Arc::clone(&clock)),
            clock,
            lakes,
            tables: Tables::default(),
            keys: Keys::new(&config.keys)?,
            keyring: Keyring::new(&config.master_keys)?,
            models: ModelCache::new(config.model_cache_bytes),
            swept: parking_lot::Mutex::default(),
        };
        Ok(Arc::new(catalog))
    }

    /// The configured stores, which are DataFusion's object-store registry too.
    pub fn stores(&self) -> &Arc<Stores> {
        &self.stores
    }

    /// The present time, in Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// How long a lake's list of files and tables stays valid.
    pub fn freshness(&self) -> Duration {
        self.freshness
    }

    /// An id that is like no other: of a session, a query, a job.
    pub fn new_id(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    /// The schemas: `main` and each lake's name.
    pub fn schemas(&self) -> Vec<String> {
        std::iter::once(MAIN.to_owned()).chain(self.lakes.keys().cloned()).collect()
    }

    /// Every readable definition by schema and name, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn definitions(&self) -> Result<Arc<Definitions>> {
        self.objects.definitions().await
    }

    /// A definition, at most a second old; a missing one is looked for in the store at once.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the document cannot be read.
    pub async fn definition(&self, name: &ObjectName) -> Result<Option<Definition>> {
        self.objects.find(name).await
    }

    /// What a name is, also a lake's own table; `None` when it is nothing.
    ///
    /// # Errors
    /// When a store cannot be reached, or the document cannot be read.
    pub async fn kind(&self, name: &ObjectName) -> Result<Option<Kind>> {
        Ok(match self.resolve(name).await? {
            Some(Named::Defined(definition)) => Some(definition.spec.kind()),
            Some(Named::Lake(_)) => Some(Kind::Table),
            None => None,
        })
    }

    /// Creates a definition; `false` when the name exists and `mode` is `IfNotExists`.
    ///
    /// # Errors
    /// `AlreadyExists`; `Conflict` when somebody else was first; `Invalid` when a thing of another
    /// kind has the name; `ReadOnly` when the warehouse cannot be written.
    pub async fn create(
        &self,
        name: &ObjectName,
        spec: Spec,
        owner: &str,
        mode: CreateMode,
    ) -> Result<bool> {
        let seen = self.seen(name).await?;
        self.create_over(name, spec, owner, mode, &seen).await
    }

    /// Creates a definition over exactly what was seen under its name, as [`Catalog::create`] does.
    ///
    /// # Errors
    /// As there; `Conflict` when something else is replaced than what was seen.
    pub async fn create_over(
        &self,
        name: &ObjectName,
        spec: Spec,
        owner: &str,
        mode: CreateMode,
        seen: &Seen,
    ) -> Result<bool> {
        match &spec {
            Spec::External(table) => {
                self.check_schema(name)?;
                table.check()?;
            }
            other => self.check_main(name, other.kind())?,
        }
        self.writable().await?;
        if let Some(kept) = self.check_lake_table(name, mode).await? {
            return Ok(kept);
        }
        if mode == CreateMode::Replace {
            self.check_append_only(name).await?;
            self.settle_rules(name).await?;
        }
        match spec {
            Spec::External(_) => self.create_with_identifiers(name, spec, owner, mode, seen).await,
            other => self.objects.create_over(name, other, owner, mode, seen.head()).await,
        }
    }

    /// Drops a definition with the grants on it, what is expected of it, the restricted table of
    /// its identifiers and, a while later, what it owns; `false` when there is none.
    ///
    /// # Errors
    /// `Invalid` when the name is a thing of another kind, or a restricted table whose table is
    /// there; `Conflict` when somebody else changed it at the same time.
    pub async fn drop_object(&self, name: &ObjectName, kind: Kind) -> Result<bool> {
        self.writable().await?;
        self.check_append_only(name).await?;
        // Exactly this is dropped: what another table of the name has brought along would get lost.
        let seen = self.objects.head(name).await?;
        if kind == Kind::Table {
            self.drop_beside(name).await?;
            // Policies stay with the name.
            self.settle_rules(name).await?;
        }
        // Grants go first: a failure in between leaves an object that fewer may see, never grants
        // that a later object of that name would inherit.
        let is_there = seen.as_ref().is_some_and(|head| match &head.document {
            Ok(document) => document.spec.as_ref().is_some_and(|spec| spec.kind() == kind),
            // What cannot be read any more is dropped too, and had grants like anything else.
            Err(_) => true,
        });
        if is_there {
            let on = match kind {
                Kind::Model => Securable::Model(name.clone()),
                _ => Securable::Table(name.clone()),
            };
            self.forget_grants(&on).await?;
            self.forget_expectations(name).await?;
        }
        let dropped = self.objects.drop_over(name, kind, seen.as_ref()).await?;
        if dropped {
            self.forget_copies(name).await?;
            self.sweep().await;
        }
        Ok(dropped)
    }

    fn check_schema(&self, name: &ObjectName) -> Result<()> {
        name.check()?;
        if name.schema == MAIN || self.lakes.contains_key(&name.schema) {
            return Ok(());
        }
        let schemas = self.schemas();
        let names = schemas.iter().map(String::as_str);
        Err(Error::not_found("schema", &name.schema, names))
    }

    /// Checks that a thing of `kind` is not named in a lake's schema.
    fn check_main(&self, name: &ObjectName, kind: Kind) -> Result<()> {
        name.check()?;
        // A schema that is no lake is the warehouse's own or a user's; `sql` knows whose.
        if !self.lakes.contains_key(&name.schema) {
            return Ok(());
        }
        Err(Error::invalid_hint(
            format!("schema {} is a lake and takes no {kind}", name.schema),
            format!("create it as {MAIN}.{}", name.name),
        ))
    }

    /// Checks that the warehouse can be written.
    ///
    /// # Errors
    /// When it cannot, saying why.
    pub async fn writable(&self) -> Result<()> {
        self.warehouse.writable().await
    }
}
