//! What a principal may do, as it stands when a statement starts.
//!
//! `admin` may read, change and define everything but what is policy. Everybody else owns the
//! schema of its own name and what it has defined elsewhere, and holds what was granted to it, to
//! its roles and to PUBLIC. `engineer` defines external tables and reads them. What somebody may
//! not see does not exist for it: callers give the same error as for a missing name.
//!
//! `admin` and `policy_admin` do not imply each other: an administrator cannot make itself a holder
//! of `policy_admin` while others hold it, nor take over an account that does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::policy::principal::EMBEDDED;
use catalog::policy::{Grant, Grantee, Principal, Privilege, Role, Securable};
use catalog::{Accounts, Catalog, Moment, Object, ObjectName, Purposes, PurposesMoment};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};
use udfs::privacy::KeyUse;

use crate::consent::held::HeldPurposes;
use crate::engine::MAIN;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::system;

/// The columns that somebody may read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Columns {
    /// None: the table does not exist for a reader.
    #[default]
    None,
    /// These.
    Some(BTreeSet<String>),
    /// All.
    All,
}

/// What somebody may do with the rows of a table or view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Access {
    pub(crate) select: Columns,
    pub(crate) insert: bool,
    pub(crate) update: bool,
    pub(crate) delete: bool,
}

impl Access {
    fn all() -> Self {
        Self { select: Columns::All, insert: true, update: true, delete: true }
    }

    /// Whether nothing more could be granted.
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::all()
    }

    /// Whether the table exists for its holder.
    pub(crate) fn is_any(&self) -> bool {
        self.select != Columns::None || self.insert || self.update || self.delete
    }

    fn add(&mut self, grant: &Grant) {
        match grant.privilege {
            Privilege::Select => {
                let select = std::mem::take(&mut self.select);
                self.select = match (select, &grant.columns) {
                    (Columns::All, _) | (_, None) => Columns::All,
                    (Columns::None, Some(new)) => Columns::Some(new.clone()),
                    (Columns::Some(old), Some(new)) => Columns::Some(&old | new),
                };
            }
            Privilege::Insert => self.insert = true,
            Privilege::Update => self.update = true,
            Privilege::Delete => self.delete = true,
            // Of schemas, models, functions and keys.
            _ => {}
        }
    }

    /// Whether one change of rows is allowed.
    pub(crate) fn allows(&self, privilege: Privilege) -> bool {
        match privilege {
            Privilege::Select => self.select == Columns::All,
            Privilege::Insert => self.insert,
            Privilege::Update => self.update,
            Privilege::Delete => self.delete,
            _ => false,
        }
    }
}

/// The rights of a principal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rights {
    name: String,
    embedded: bool,
    /// The roles held, and those of them that are active.
    held: BTreeSet<String>,
    active: BTreeSet<String>,
    /// The schemas that are nobody's own: `main` and the lakes.
    shared: BTreeSet<String>,
    /// The users' schemas, for an administrator.
    others: BTreeSet<String>,
    /// Functions that were taken from PUBLIC.
    closed: BTreeSet<String>,
    grants: BTreeMap<Securable, Vec<Grant>>,
    /// Purposes, and the tables that are read for one of them alone.
    purposes: HeldPurposes,
}

impl Rights {
    /// The rights of `principal` with only `role` of its roles active, or all of them.
    ///
    /// # Errors
    /// When the principal's user is gone.
    pub(crate) fn new(
        principal: &Principal,
        role: Option<&str>,
        accounts: &Accounts,
        purposes: &Purposes,
        catalog: &Catalog,
    ) -> Result<Self> {
        let name = principal.name.clone();
        let record = accounts.user(&name).filter(|_| principal.follows_record());
        let held = match (principal.follows_record(), record) {
            (false, _) => principal.roles.clone(),
            (true, Some(user)) => user.roles.clone(),
            (true, None) => {
                return Err(Error::Denied {
                    principal: name,
                    action: "ask anything: the user was dropped".into(),
                    hint: Some("log in as another user".into()),
                });
            }
        };
        let active: BTreeSet<String> = match role {
            Some(role) => held.iter().filter(|held| *held == role).cloned().collect(),
            None => held.clone(),
        };
        let mut grants: BTreeMap<Securable, Vec<Grant>> = BTreeMap::new();
        let of_roles = active.iter().map(|role| Grantee::Role(role.clone()));
        let of_user = record.map(|user| Grantee::User(user.name.clone()));
        for grantee in of_roles.chain(of_user).chain([Grantee::Public]) {
            for grant in accounts.grants(&grantee) {
                grants.entry(grant.on.clone()).or_default().push(grant.clone());
            }
        }
        let others = match active.contains(Role::Admin.name()) {
            true => accounts.users().map(|user| user.name.clone()).collect(),
            false => BTreeSet::new(),
        };
        let shared = catalog.schemas().into_iter().collect();
        let closed = accounts.closed_functions().map(str::to_owned).collect();
        let embedded = principal.is_embedded();
        let granted = |purpose: &str| grants.contains_key(&Securable::Purpose(purpose.to_owned()));
        let default = record.and_then(|user| user.default_purpose.as_deref());
        let purposes = HeldPurposes::new(purposes, default, |purpose| embedded || granted(purpose));
        Ok(Self { name, embedded, held, active, shared, others, closed, grants, purposes })
    }

    /// Purposes, and the tables that are read for one of them alone.
    pub(crate) fn purposes(&self) -> &HeldPurposes {
        &self.purposes
    }

    /// The user's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a built-in role is held and active.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.active.contains(role.name())
    }

    /// The active roles.
    pub(crate) fn roles(&self) -> &BTreeSet<String> {
        &self.active
    }

    /// The roles held, active or not.
    pub(crate) fn held_roles(&self) -> &BTreeSet<String> {
        &self.held
    }

    /// Checks that `role` may be made the active one.
    ///
    /// # Errors
    /// When it is not held.
    pub(crate) fn check_role(&self, role: &str) -> Result<()> {
        if role.is_empty() || self.held.contains(role) {
            return Ok(());
        }
        let held: Vec<&str> = self.held.iter().map(String::as_str).collect();
        let hint = match held.as_slice() {
            [] => "you hold no role".to_owned(),
            held => format!("you hold {}", held.join(", ")),
        };
        Err(Error::Denied {
            principal: self.name.clone(),
            action: format!("take the role {role}"),
            hint: Some(hint),
        })
    }

    /// Whether a schema is this principal's own.
    pub(crate) fn owns_schema(&self, schema: &str) -> bool {
        !self.embedded
            && schema == self.name
            && !self.shared.contains(schema)
            && !system::is_system(schema)
    }

    /// Whether everything in a schema may be read, changed and defined.
    pub(crate) fn rules(&self, schema: &str) -> bool {
        !system::is_system(schema) && (self.has(Role::Admin) || self.owns_schema(schema))
    }

    /// Whether a schema is a lake's or `main`.
    pub(crate) fn is_shared(&self, schema: &str) -> bool {
        self.shared.contains(schema)
    }

    /// The schemas that exist for this principal, by what the rights alone tell.
    pub(crate) fn schemas(&self) -> BTreeSet<String> {
        let mut schemas: BTreeSet<String> = system::SCHEMAS.map(String::from).into();
        schemas.insert(MAIN.into());
        if self.owns_schema(&self.name) {
            schemas.insert(self.name.clone());
        }
        if self.has(Role::Admin) || self.has(Role::Engineer) {
            schemas.extend(self.shared.iter().cloned());
        }
        schemas.extend(self.others.iter().filter(|name| !system::is_system(name)).cloned());
        schemas.extend(self.grants.keys().filter_map(Securable::schema).map(str::to_owned));
        schemas
    }

    fn granted(&self, on: &Securable) -> &[Grant] {
        self.grants.get(on).map_or(&[], Vec::as_slice)
    }

    fn holds(&self, privilege: Privilege, on: &Securable) -> bool {
        self.granted(on).iter().any(|grant| grant.privilege == privilege)
    }

    /// Whether a definition's owner is this principal. What embedded use made before there were
    /// users is the administrators', whatever somebody is called.
    pub(crate) fn is_me(&self, owner: Option<&str>) -> bool {
        owner == Some(&self.name) && (self.embedded || self.name != EMBEDDED)
    }

    fn owns(&self, object: Option<&Object>) -> bool {
        object.is_some_and(|object| self.is_me(object.owner.as_deref()))
    }

    /// What may be done with the rows of a table or view by the grants and the schema alone.
    pub(crate) fn granted_access(&self, name: &ObjectName) -> Access {
        if self.rules(&name.schema) {
            return Access::all();
        }
        let mut access = Access::default();
        for on in [Securable::Table(name.clone()), Securable::Tables(name.schema.clone())] {
            self.granted(&on).iter().for_each(|grant| access.add(grant));
        }
        access
    }

    /// What may be done with a table of personal identifiers: read it, by a grant on the table
    /// itself. Neither a role nor its schema, nor who made it, gives more; embedded use has all.
    fn restricted_access(&self, name: &ObjectName) -> Access {
        let mut access = Access::default();
        let granted = self.granted(&Securable::Table(name.clone())).iter();
        let reads = granted.filter(|grant| grant.privilege == Privilege::Select);
        reads.for_each(|grant| access.add(grant));
        if self.embedded { Access::all() } else { access }
    }

    /// What may be done with the rows of a table or view that is `object`.
    pub(crate) fn access(&self, name: &ObjectName, object: Option<&Object>) -> Access {
        if object.is_some_and(Object::is_restricted) {
            return self.restricted_access(name);
        }
        if self.owns(object) {
            return Access::all();
        }
        let mut access = self.granted_access(name);
        let external = object.is_some_and(|object| object.external);
        if external && self.has(Role::Engineer) && self.is_shared(&name.schema) {
            access.select = Columns::All;
        }
        access
    }

    /// Whether a model may be asked.
    pub(crate) fn may_use(&self, model: &ObjectName, owner: Option<&str>) -> bool {
        self.sees_definition(model, owner)
            || self.holds(Privilege::Usage, &Securable::Model(model.clone()))
            || self.holds(Privilege::Usage, &Securable::Models(model.schema.clone()))
    }

    /// Whether what a model learned of single persons may be read: the interactions behind a score
    /// are rows of its training, which asking it does not give.
    ///
    /// # Errors
    /// When they may not.
    pub(crate) fn may_explain(&self, model: &ObjectName, owner: Option<&str>) -> Result<()> {
        if self.sees_definition(model, owner)
            || self.holds(Privilege::Select, &Securable::Model(model.clone()))
            || self.holds(Privilege::Select, &Securable::Models(model.schema.clone()))
        {
            return Ok(());
        }
        Err(Error::Denied {
            principal: self.name.clone(),
            action: format!("read with {model} what somebody did"),
            hint: Some(format!("ask for SELECT ON MODEL {model}; USAGE gives scores alone")),
        })
    }

    /// Whether the text of a view's or model's query may be shown.
    pub(crate) fn sees_definition(&self, name: &ObjectName, owner: Option<&str>) -> bool {
        self.rules(&name.schema) || self.is_me(owner)
    }

    /// Whether tables, views and models may be created under a name, and those there replaced.
    ///
    /// # Errors
    /// When they may not.
    pub(crate) fn may_create(&self, name: &ObjectName) -> Result<()> {
        if system::is_system(&name.schema) {
            return Err(self.no_definition(name, "system schemas are made by Attune".into()));
        }
        let schema = Securable::Schema(name.schema.clone());
        if self.rules(&name.schema) || self.holds(Privilege::Create, &schema) {
            return Ok(());
        }
        let hint = match self.owns_schema(&self.name) {
            true => format!("create it in your own schema: {}.{}", self.name, name.name),
            false => format!("ask for CREATE ON SCHEMA {}", name.schema),
        };
        Err(self.no_definition(name, hint))
    }

    /// Whether an existing table, view or model may be dropped, replaced or retrained.
    ///
    /// # Errors
    /// When it may not; also for one that does not exist, so that the error tells nothing.
    pub(crate) fn may_change(&self, name: &ObjectName, object: Option<&Object>) -> Result<()> {
        if !system::is_system(&name.schema) {
            let external = object.is_some_and(|object| object.external);
            let engineer = external && self.has(Role::Engineer) && self.is_shared(&name.schema);
            let keeps = object.is_some_and(|object| object.pii.is_some());
            if self.owns(object) || engineer || (keeps && self.has(Role::PolicyAdmin)) {
                return Ok(());
            }
        }
        self.may_create(name)
    }

    /// Whether an external table may be defined, in place of `object` or as a new one.
    ///
    /// # Errors
    /// When it may not.
    pub(crate) fn may_create_external(
        &self,
        name: &ObjectName,
        object: Option<&Object>,
    ) -> Result<()> {
        if system::is_system(&name.schema) {
            return Err(self.no_definition(name, "system schemas are made by Attune".into()));
        }
        if self.has(Role::Admin) {
            return Ok(());
        }
        if !self.has(Role::Engineer) {
            let hint = "external tables need the role engineer".into();
            return Err(self.no_definition(name, hint));
        }
        if self.is_shared(&name.schema) && object.is_none_or(|object| object.external) {
            return Ok(());
        }
        self.may_create(name)
    }

    /// Whether a function may be called.
    pub(crate) fn may_execute(&self, function: &str) -> bool {
        let is_open = self.is_public(function) || self.has(Role::Admin);
        is_open || self.holds(Privilege::Execute, &Securable::Function(function.into()))
    }

    /// Whether everybody may call a function.
    pub(crate) fn is_public(&self, function: &str) -> bool {
        !self.closed.contains(function)
    }

    /// Checks the functions of a plan and of its relations.
    ///
    /// # Errors
    /// When one of them may not be called.
    pub(crate) fn may_call(&self, plan: &LogicalPlan, relations: &BTreeSet<String>) -> Result<()> {
        if self.closed.is_empty() {
            return Ok(());
        }
        let refused = |name: &str| Error::Denied {
            principal: self.name.clone(),
            action: format!("call {name}"),
            hint: Some(format!("ask for EXECUTE ON FUNCTION {name}")),
        };
        if let Some(name) = relations.iter().find(|name| !self.may_execute(name)) {
            return Err(refused(name));
        }
        let check = |expr: &Expr| {
            let name = match expr {
                Expr::ScalarFunction(call) => call.func.name(),
                Expr::AggregateFunction(call) => call.func.name(),
                Expr::WindowFunction(call) => call.fun.name(),
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            match self.may_execute(name) {
                true => Ok(TreeNodeRecursion::Continue),
                false => Err(DataFusionError::from(refused(name))),
            }
        };
        plan.apply_with_subqueries(|node| node.apply_expressions(|expr| expr.apply(check)))?;
        Ok(())
    }

    /// Whether a key may be used in a query. Only a grant of this very use gives it: neither a role
    /// nor another use does. Embedded use without users has every right.
    ///
    /// # Errors
    /// When it may not, whether the key exists or not.
    pub(crate) fn may_use_key(&self, key: &str, key_use: KeyUse) -> Result<()> {
        let privilege = Privilege::from(key_use);
        if self.embedded || self.holds(privilege, &Securable::Key(key.to_owned())) {
            return Ok(());
        }
        Err(Error::Denied {
            principal: self.name.clone(),
            action: format!("{} with key {key}", privilege.name().to_lowercase()),
            hint: Some(format!(
                "ask a policy_admin for GRANT USAGE ON KEY {key} TO … FOR {privilege}"
            )),
        })
    }

    /// Whether a principal knows of a key: who manages keys or users, and who may use it.
    pub(crate) fn sees_key(&self, key: &str) -> bool {
        self.has(Role::PolicyAdmin)
            || self.has(Role::Admin)
            || !self.granted(&Securable::Key(key.to_owned())).is_empty()
    }

    /// Whether keys may be made, rotated and dropped.
    ///
    /// # Errors
    /// When they may not.
    pub(crate) fn may_manage_keys(&self) -> Result<()> {
        if self.has(Role::PolicyAdmin) {
            return Ok(());
        }
        Err(Error::Denied {
            principal: self.name.clone(),
            action: "make, change or drop keys".into(),
            hint: Some("this needs the role policy_admin".into()),
        })
    }

    /// Whether others may be given rights on something: an administrator on everything but keys
    /// and tables of personal identifiers, which are `policy_admin`'s, and an owner on its own.
    pub(crate) fn may_grant(&self, on: &Securable, object: Option<&Object>) -> bool {
        match on {
            Securable::Table(_) if object.is_some_and(Object::is_restricted) => {
                self.has(Role::PolicyAdmin)
            }
            Securable::Table(name) | Securable::Model(name) => {
                self.rules(&name.schema) || self.owns(object)
            }
            Securable::Tables(schema) | Securable::Models(schema) | Securable::Schema(schema) => {
                self.rules(schema)
            }
            Securable::Key(_) => self.has(Role::PolicyAdmin),
            Securable::Function(_) => self.has(Role::Admin),
            Securable::Purpose(_) => self.has(Role::PolicyAdmin),
        }
    }

    /// Whether users and roles may be managed.
    ///
    /// # Errors
    /// When they may not.
    pub(crate) fn may_manage(&self, action: impl Into<String>) -> Result<()> {
        if self.has(Role::Admin) {
            return Ok(());
        }
        Err(Error::Denied {
            principal: self.name.clone(),
            action: action.into(),
            hint: Some("this needs the role admin".into()),
        })
    }

    /// Whether policies, purposes and grants of purposes may be managed.
    ///
    /// # Errors
    /// When they may not.
    pub(crate) fn may_set_policy(&self, action: impl Into<String>) -> Result<()> {
        if self.has(Role::PolicyAdmin) {
            return Ok(());
        }
        Err(Error::Denied {
            principal: self.name.clone(),
            action: action.into(),
            hint: Some("this needs the role policy_admin".into()),
        })
    }

    /// The error for a change of rows that is not granted on a table that is seen.
    pub(crate) fn no_change(&self, privilege: Privilege, name: &ObjectName) -> Error {
        Error::Denied {
            principal: self.name.clone(),
            action: format!("{} rows of {name}", privilege.name().to_lowercase()),
            hint: Some(format!("ask for {privilege} ON {name}")),
        }
    }

    fn no_definition(&self, name: &ObjectName, hint: String) -> Error {
        Error::Denied {
            principal: self.name.clone(),
            action: format!("create, change or drop {name}"),
            hint: Some(hint),
        }
    }
}

/// The owner of a definition, as who asks; `None` when there is no such user any more. What
/// embedded use made is the embedded principal's as long as there are no users.
///
/// # Errors
/// When users cannot be read.
pub(crate) async fn owner(catalog: &Catalog, name: &str) -> Result<Option<Principal>> {
    if let Some(user) = catalog.user(name).await? {
        return Ok(Some(Principal::of(&user)));
    }
    let is_embedded = name == EMBEDDED && !catalog.has_users().await?;
    Ok(is_embedded.then(Principal::embedded))
}

/// The rights that a session looked at last, and what they were made of.
#[derive(Debug, Default)]
pub(crate) struct RightsCache(parking_lot::Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    moment: Moment,
    purposes: PurposesMoment,
    role: Option<String>,
    rights: Arc<Rights>,
}

impl RightsCache {
    /// The principal's rights, at most a second old. Rights that have not changed are the same
    /// `Arc`.
    ///
    /// # Errors
    /// When users and grants cannot be read: then nobody may do anything.
    pub(crate) async fn current(&self, session: &Session) -> Result<Arc<Rights>> {
        let (catalog, principal) = (session.engine().catalog(), session.principal());
        let accounts = match principal.follows_record() {
            true => catalog.accounts_with(&principal.name).await?,
            false => catalog.accounts().await?,
        };
        let purposes = catalog.purposes().await?;
        let role = session.settings().role;
        let mut known = self.0.lock();
        if let Some(known) = &*known
            && accounts.is_of(&known.moment)
            && purposes.is_of(&known.purposes)
            && known.role == role
        {
            return Ok(Arc::clone(&known.rights));
        }
        let fresh = Rights::new(principal, role.as_deref(), &accounts, &purposes, catalog)?;
        let rights = match &*known {
            Some(known) if *known.rights == fresh => Arc::clone(&known.rights),
            _ => Arc::new(fresh),
        };
        let (moment, purposes) = (accounts.moment(), purposes.moment());
        *known = Some(Known { moment, purposes, role, rights: Arc::clone(&rights) });
        Ok(rights)
    }
}

#[cfg(test)]
#[path = "rights_tests.rs"]
mod tests;
