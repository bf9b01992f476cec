//! Users and roles are documents of the warehouse, so that every server over it knows the same.
//!
//! A user's document holds its password's hash, its roles and what was granted to it; a role's
//! document holds what was granted to the role. PUBLIC, which is everybody, has a role's document.
//! Each is changed by compare-and-swap: a lost race is an error.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::policy::{Grant, Grantee, Securable, is_built_in};
use crate::registry::{CreateMode, Definitions, Head, Kind, ObjectName, Spec};

/// The places of users and roles in their registry; no SQL name reaches it.
const USER: &str = "user";
const ROLE: &str = "role";
/// The document of what everybody holds.
const PUBLIC: &str = "public";
/// How often a change that does not depend on what others changed is tried again.
const TRIES: usize = 8;

/// A user of the server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// The name.
    pub name: String,
    /// The password's argon2 hash, in PHC form.
    pub password_hash: String,
    /// The roles the user holds, built-in and defined ones.
    pub roles: BTreeSet<String>,
    /// What was granted to the user itself.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// The purpose of reads of sessions that state none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_purpose: Option<String>,
}

impl UserRecord {
    /// A user to whom nothing was granted beside the roles.
    pub fn new(
        name: impl Into<String>,
        password_hash: impl Into<String>,
        roles: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            name: name.into(),
            password_hash: password_hash.into(),
            roles: roles.into_iter().map(Into::into).collect(),
            grants: Vec::new(),
            default_purpose: None,
        }
    }

    /// A digest of the password's hash: with another password, or for another user of the same
    /// name, it is another stamp.
    pub fn stamp(&self) -> String {
        crate::tokens::digest(&self.password_hash)
    }
}

impl fmt::Debug for UserRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("UserRecord")
            .field("name", &self.name)
            .field("roles", &self.roles)
            .field("grants", &self.grants)
            .finish_non_exhaustive()
    }
}

/// A role: a built-in one once something was granted to it, or a defined one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// The name.
    pub name: String,
    /// What was granted to the role.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// Functions that everybody may call unless they are named here; of PUBLIC alone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub closed_functions: BTreeSet<String>,
}

/// Users, roles and grants as they stood at one moment, at most a second ago.
#[derive(Debug, Clone)]
pub struct Accounts(Arc<Definitions>);

/// The moment of some [`Accounts`], which it does not keep alive.
#[derive(Debug, Clone)]
pub struct Moment(Weak<Definitions>);

impl Accounts {
    /// The moment, to be compared with a later one's.
    pub fn moment(&self) -> Moment {
        Moment(Arc::downgrade(&self.0))
    }

    /// Whether these are of that moment.
    pub fn is_of(&self, moment: &Moment) -> bool {
        Weak::ptr_eq(&moment.0, &Arc::downgrade(&self.0))
    }

    /// The user of that name.
    pub fn user(&self, name: &str) -> Option<&UserRecord> {
        match &self.0.get(&(USER.to_owned(), name.to_owned()))?.spec {
            Spec::User(user) => Some(user),
            _ => None,
        }
    }

    /// Every readable user, by name.
    pub fn users(&self) -> impl Iterator<Item = &UserRecord> {
        self.0.values().filter_map(|found| match &found.spec {
            Spec::User(user) => Some(user),
            _ => None,
        })
    }

    /// Every readable role with a document, by name; not PUBLIC's.
    pub fn roles(&self) -> impl Iterator<Item = &RoleRecord> {
        self.0.values().filter_map(|found| match &found.spec {
            Spec::Role(role) if role.name != PUBLIC => Some(role),
            _ => None,
        })
    }

    /// Whether a role of that name exists, built-in or defined.
    pub fn has_role(&self, name: &str) -> bool {
        is_built_in(name) || self.roles().any(|role| role.name == name)
    }

    /// Functions that not everybody may call, beside those that never were everybody's.
    pub fn closed_functions(&self) -> impl Iterator<Item = &str> {
        let public = self.0.get(&(ROLE.to_owned(), PUBLIC.to_owned()));
        let closed = public.and_then(|found| match &found.spec {
            Spec::Role(role) => Some(&role.closed_functions),
            _ => None,
        });
        closed.into_iter().flatten().map(String::as_str)
    }

    /// What was granted to somebody directly.
    pub fn grants(&self, grantee: &Grantee) -> &[Grant] {
        let (schema, name) = place(grantee);
        match self.0.get(&(schema.to_owned(), name.to_owned())).map(|found| &found.spec) {
            Some(Spec::User(user)) => &user.grants,
            Some(Spec::Role(role)) => &role.grants,
            _ => &[],
        }
    }
}

/// Where a grantee's document is.
fn place(grantee: &Grantee) -> (&'static str, &str) {
    match grantee {
        Grantee::User(name) => (USER, name),
        Grantee::Role(name) => (ROLE, name),
        Grantee::Public => (ROLE, PUBLIC),
    }
}

impl Catalog {
    /// The user of that name. Read from the store, never from a cache: a changed password and a
    /// revoked role count at once.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or the document cannot be read.
    pub async fn user(&self, name: &str) -> Result<Option<UserRecord>> {
        let user = ObjectName::new(USER, name);
        if user.check().is_err() {
            return Ok(None);
        }
        Ok(self.users.read(&user).await?.and_then(|definition| record(definition.spec)))
    }

    /// Every readable user, by name.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn users(&self) -> Result<Vec<UserRecord>> {
        Ok(self.accounts().await?.users().cloned().collect())
    }

    /// Whether the warehouse has users. One whose document cannot be read counts, so that damage
    /// does not open the warehouse to everybody.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn has_users(&self) -> Result<bool> {
        self.users.holds(USER).await
    }

    /// Users, roles and grants, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn accounts(&self) -> Result<Accounts> {
        Ok(Accounts(self.users.definitions().await?))
    }

    /// The same, after looking for one user that may be newer.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or the user's document cannot be read.
    pub async fn accounts_with(&self, user: &str) -> Result<Accounts> {
        let accounts = self.accounts().await?;
        if accounts.user(user).is_some() || self.user(user).await?.is_none() {
            return Ok(accounts);
        }
        self.accounts().await
    }

    /// Why the document of one of the users and roles cannot be read; `None` when each can.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn accounts_fault(&self) -> Result<Option<Error>> {
        Ok(self.users.definitions_and_fault().await?.1)
    }

    /// Stores a user.
    ///
    /// # Errors
    /// `AlreadyExists` when the name exists and `replace` is not set, `Conflict` when somebody
    /// else changed the user at the same time.
    pub async fn put_user(&self, user: UserRecord, replace: bool) -> Result<()> {
        self.writable().await?;
        if !replace && self.user(&user.name).await?.is_none() {
            self.drop_tokens_of(&user.name).await?;
        }
        let name = ObjectName::new(USER, &user.name);
        let mode = if replace { CreateMode::Replace } else { CreateMode::New };
        let owner = user.name.clone();
        self.users.create(&name, Spec::User(user), &owner, mode).await.map(|_| ())
    }

    /// Changes a user's record; gives what `change` gives. Nothing is written when the record
    /// stays as it is.
    ///
    /// # Errors
    /// `NotFound` when there is no such user, `Conflict` when somebody else changed the user at the
    /// same time.
    pub async fn change_user<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut UserRecord) -> T,
    ) -> Result<T> {
        self.writable().await?;
        let place = ObjectName::new(USER, name);
        let head = self.users.head(&place).await?;
        let Some((Spec::User(mut user), owner)) = present(head.as_ref())? else {
            return Err(Self::unknown_user(name));
        };
        let before = user.clone();
        let outcome = change(&mut user);
        if user != before {
            self.users.put(&place, Some(Spec::User(user)), &owner, head.as_ref()).await?;
        }
        Ok(outcome)
    }

    /// Removes a user; `false` when there was none.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or somebody else changed the user at the same time.
    pub async fn drop_user(&self, name: &str) -> Result<bool> {
        self.writable().await?;
        self.drop_tokens_of(name).await?;
        self.users.drop_object(&ObjectName::new(USER, name), Kind::User).await
    }

    /// Makes a role; `false` when it exists and `if_not_exists` is set.
    ///
    /// # Errors
    /// `AlreadyExists` when the name exists.
    pub async fn create_role(&self, name: &str, by: &str, if_not_exists: bool) -> Result<bool> {
        self.writable().await?;
        if is_built_in(name) || name == PUBLIC {
            return match if_not_exists {
                true => Ok(false),
                false => Err(Error::AlreadyExists { kind: "role", name: name.into() }),
            };
        }
        let mode = if if_not_exists { CreateMode::IfNotExists } else { CreateMode::New };
        let spec = Spec::Role(RoleRecord { name: name.into(), ..RoleRecord::default() });
        let made = self.users.create(&ObjectName::new(ROLE, name), spec, by, mode).await;
        made.map_err(|error| match error {
            Error::AlreadyExists { .. } => Error::AlreadyExists { kind: "role", name: name.into() },
            other => other,
        })
    }

    /// Removes a role, from its holders first, so that a role of the same name made later gives
    /// nothing to who held this one; `false` when there was none.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or somebody else changed a holder or the role at the
    /// same time.
    pub async fn drop_role(&self, name: &str) -> Result<bool> {
        self.writable().await?;
        let holders: Vec<String> = self
            .accounts()
            .await?
            .users()
            .filter(|user| user.roles.contains(name))
            .map(|user| user.name.clone())
            .collect();
        for holder in holders {
            self.change_user(&holder, |user| user.roles.remove(name)).await?;
        }
        self.users.drop_object(&ObjectName::new(ROLE, name), Kind::Role).await
    }

    /// Changes what was granted to somebody; gives what `change` gives. Nothing is written when
    /// the grants stay as they are.
    ///
    /// # Errors
    /// `NotFound` when there is no such user or role, `Conflict` when somebody else changed it at
    /// the same time.
    pub async fn change_grants<T>(
        &self,
        grantee: &Grantee,
        by: &str,
        change: impl FnOnce(&mut Vec<Grant>) -> T,
    ) -> Result<T> {
        if let Grantee::User(name) = grantee {
            return self.change_user(name, |user| change(&mut user.grants)).await;
        }
        self.change_role(grantee, by, |role| change(&mut role.grants)).await
    }

    /// Takes a function from everybody (`closed`), or gives it back; whether anything changed.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or somebody else granted to PUBLIC at the same time.
    pub async fn close_function(&self, function: &str, closed: bool, by: &str) -> Result<bool> {
        let change = |public: &mut RoleRecord| match closed {
            true => public.closed_functions.insert(function.to_owned()),
            false => public.closed_functions.remove(function),
        };
        self.change_role(&Grantee::Public, by, change).await
    }

    async fn change_role<T>(
        &self,
        grantee: &Grantee,
        by: &str,
        change: impl FnOnce(&mut RoleRecord) -> T,
    ) -> Result<T> {
        self.writable().await?;
        let (schema, name) = place(grantee);
        let place = ObjectName::new(schema, name);
        let head = self.users.head(&place).await?;
        let (mut role, owner) = match present(head.as_ref())? {
            Some((Spec::Role(role), owner)) => (role, owner),
            // Built-in roles and PUBLIC exist without a document.
            _ if is_built_in(name) || *grantee == Grantee::Public => {
                (RoleRecord { name: name.into(), ..RoleRecord::default() }, by.to_owned())
            }
            _ => return Err(Error::not_found("role", name, [])),
        };
        let before = role.clone();
        let outcome = change(&mut role);
        if role != before {
            self.users.put(&place, Some(Spec::Role(role)), &owner, head.as_ref()).await?;
        }
        Ok(outcome)
    }

    /// Takes away whatever anybody was granted on an object. Called before the object is dropped:
    /// one made later under its name starts without grants.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn forget_grants(&self, on: &Securable) -> Result<()> {
        let accounts = self.accounts().await?;
        let users = accounts.users().map(|user| Grantee::User(user.name.clone()));
        let roles = accounts.roles().map(|role| Grantee::Role(role.name.clone()));
        let holders: Vec<Grantee> = users
            .chain(roles)
            .chain([Grantee::Public])
            .filter(|grantee| accounts.grants(grantee).iter().any(|grant| grant.on == *on))
            .collect();
        for holder in holders {
            self.forget_of(&holder, on).await?;
        }
        Ok(())
    }

    async fn forget_of(&self, holder: &Grantee, on: &Securable) -> Result<()> {
        let mut last = Ok(());
        for _ in 0..TRIES {
            let forget = |held: &mut Vec<Grant>| held.retain(|grant| grant.on != *on);
            last = self.change_grants(holder, "", forget).await;
            match &last {
                Err(error) if error.is_lost_race() => {}
                // Who is gone holds nothing.
                Err(Error::NotFound { .. }) => return Ok(()),
                _ => break,
            }
        }
        last
    }

    /// The error for a user that does not exist; says no other user's name.
    pub fn unknown_user(name: &str) -> Error {
        Error::not_found("user", name, [])
    }
}

/// What a head holds, with its owner.
fn present(head: Option<&Head>) -> Result<Option<(Spec, String)>> {
    let Some(head) = head else { return Ok(None) };
    let document = head.document.clone()?;
    Ok(document.spec.clone().map(|spec| (spec, document.owner.clone())))
}

fn record(spec: Spec) -> Option<UserRecord> {
    match spec {
        Spec::User(user) => Some(user),
        _ => None,
    }
}
