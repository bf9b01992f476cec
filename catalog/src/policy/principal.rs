//! Principals and the built-in roles.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::users::UserRecord;

/// The name of the embedded principal; no user has it.
pub const EMBEDDED: &str = "local";

/// A built-in role. `policy_admin` and `admin` do not imply each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads what is granted; creates tables, views and models in schemas of its own.
    Analyst,
    /// External tables, jobs and settings.
    Engineer,
    /// Policies, purposes, keys and their grants.
    PolicyAdmin,
    /// Users and roles, and every definition.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Analyst, Self::Engineer, Self::PolicyAdmin, Self::Admin];

    /// The role's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Analyst => "analyst",
            Self::Engineer => "engineer",
            Self::PolicyAdmin => "policy_admin",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|role| role.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| Error::not_found("role", text, Self::ALL.map(Self::name)))
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.name().to_owned()
    }
}

/// Whether a name is a built-in role's.
pub fn is_built_in(role: &str) -> bool {
    Role::ALL.iter().any(|built_in| built_in.name() == role)
}

/// Somebody who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The user's name.
    pub name: String,
    /// The roles the user held when this was made, built-in and defined ones.
    pub roles: BTreeSet<String>,
    origin: Origin,
}

/// Where a principal's roles come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    /// The user's record, which is looked at again for each statement.
    Record,
    /// A token's claims.
    Given,
    /// Nobody asks: the engine runs in the process of whoever holds the warehouse.
    Embedded,
}

impl Principal {
    /// The owner of an embedded engine whose warehouse has no users: holds every built-in role.
    pub fn embedded() -> Self {
        Self { origin: Origin::Embedded, ..Self::new(EMBEDDED, Role::ALL) }
    }

    /// A user of the catalog. The roles and grants in force are those that the user's record has
    /// when a statement starts, and none once the record is gone.
    pub fn of(user: &UserRecord) -> Self {
        Self { name: user.name.clone(), roles: user.roles.clone(), origin: Origin::Record }
    }

    /// Somebody whom others vouch for, with the roles that they say. Roles that the catalog does
    /// not know grant nothing.
    pub fn new(
        name: impl Into<String>,
        roles: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let roles = roles.into_iter().map(Into::into).collect();
        Self { name: name.into(), roles, origin: Origin::Given }
    }

    /// Whether the principal held `role` when it was made.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(role.name())
    }

    /// Whether this is the owner of an embedded engine.
    pub fn is_embedded(&self) -> bool {
        self.origin == Origin::Embedded
    }

    /// Whether the user's record has the roles and grants in force.
    pub fn follows_record(&self) -> bool {
        self.origin == Origin::Record
    }
}
