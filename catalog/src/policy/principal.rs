//! Principals and the built-in roles.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A built-in role. `policy_admin` and `admin` do not imply each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// Somebody who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The user's name.
    pub name: String,
    /// The roles the user holds.
    pub roles: BTreeSet<Role>,
}

impl Principal {
    /// The owner of an embedded engine whose warehouse has no users: holds every role.
    pub fn embedded() -> Self {
        Self { name: "local".into(), roles: BTreeSet::from(Role::ALL) }
    }

    /// Whether the principal holds `role`.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}
