//! Users are documents of the warehouse, so that every server over it knows the same ones.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::policy::Role;
use crate::registry::{CreateMode, Kind, ObjectName, Spec};

/// The place of users in the registry; no SQL name reaches it.
const SCHEMA: &str = "user";

/// A user of the server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// The name.
    pub name: String,
    /// The password's argon2 hash, in PHC form.
    pub password_hash: String,
    /// The roles the user holds.
    pub roles: BTreeSet<Role>,
}

impl fmt::Debug for UserRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("UserRecord")
            .field("name", &self.name)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

impl Catalog {
    /// The user of that name. Read from the store, never from a cache: a changed password and a
    /// revoked role count at once.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or the document cannot be read.
    pub async fn user(&self, name: &str) -> Result<Option<UserRecord>> {
        let user = ObjectName::new(SCHEMA, name);
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
        let definitions = self.users.definitions().await?;
        Ok(definitions.values().filter_map(|found| record(found.spec.clone())).collect())
    }

    /// Stores a user.
    ///
    /// # Errors
    /// `AlreadyExists` when the name exists and `replace` is not set, `Conflict` when somebody
    /// else changed the user at the same time.
    pub async fn put_user(&self, user: UserRecord, replace: bool) -> Result<()> {
        self.writable().await?;
        let name = ObjectName::new(SCHEMA, &user.name);
        let mode = if replace { CreateMode::Replace } else { CreateMode::New };
        let owner = user.name.clone();
        self.users.create(&name, Spec::User(user), &owner, mode).await.map(|_| ())
    }

    /// Removes a user; `false` when there was none.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or somebody else changed the user at the same time.
    pub async fn drop_user(&self, name: &str) -> Result<bool> {
        self.writable().await?;
        self.users.drop_object(&ObjectName::new(SCHEMA, name), Kind::User).await
    }

    /// The error for a user that does not exist; says no other user's name.
    pub fn unknown_user(name: &str) -> Error {
        Error::not_found("user", name, [])
    }
}

fn record(spec: Spec) -> Option<UserRecord> {
    match spec {
        Spec::User(user) => Some(user),
        _ => None,
    }
}
