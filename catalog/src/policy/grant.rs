//! Grants: who may do what with which object.
//!
//! A grant lies in its grantee's document: a user's, a role's, or that of PUBLIC, which is
//! everybody.
//! There are no denials; what is not granted is not there.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use udfs::privacy::KeyUse;

use crate::registry::ObjectName;

/// What a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// Read rows, of all columns or of some; of a model, what single persons did in its training.
    Select,
    /// Add rows.
    Insert,
    /// Change rows.
    Update,
    /// Remove rows.
    Delete,
    /// Create, replace, retrain and drop in a schema.
    Create,
    /// Ask a model; see a schema; read for a purpose.
    Usage,
    /// Call a function that not everybody may call.
    Execute,
    /// Make tokens with a key that nothing turns back.
    Pseudonymize,
    /// Encrypt with a key.
    Encrypt,
    /// Decrypt with a key; nothing else implies it.
    Decrypt,
}

impl Privilege {
    /// Every privilege.
    pub const ALL: [Self; 10] = [
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Create,
        Self::Usage,
        Self::Execute,
        Self::Pseudonymize,
        Self::Encrypt,
        Self::Decrypt,
    ];

    /// The privilege's word in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Create => "CREATE",
            Self::Usage => "USAGE",
            Self::Execute => "EXECUTE",
            Self::Pseudonymize => "PSEUDONYMIZE",
            Self::Encrypt => "ENCRYPT",
            Self::Decrypt => "DECRYPT",
        }
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl From<KeyUse> for Privilege {
    fn from(key_use: KeyUse) -> Self {
        match key_use {
            KeyUse::Pseudonymize => Self::Pseudonymize,
            KeyUse::Encrypt => Self::Encrypt,
            KeyUse::Decrypt => Self::Decrypt,
        }
    }
}

/// What something is granted on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Securable {
    /// A table or view.
    Table(ObjectName),
    /// Every table and view of a schema, also those to come.
    Tables(String),
    /// A schema.
    Schema(String),
    /// A model.
    Model(ObjectName),
    /// Every model of a schema, also those to come.
    Models(String),
    /// A function.
    Function(String),
    /// A key.
    Key(String),
    /// A purpose.
    Purpose(String),
}

impl Securable {
    /// What can be granted on such an object; all of it is what ALL means.
    pub fn privileges(&self) -> &'static [Privilege] {
        use Privilege::{Create, Delete, Execute, Insert, Select, Update, Usage};
        use Privilege::{Decrypt, Encrypt, Pseudonymize};
        match self {
            Self::Table(_) | Self::Tables(_) => &[Select, Insert, Update, Delete],
            Self::Schema(_) => &[Create, Usage],
            Self::Model(_) | Self::Models(_) => &[Usage, Select],
            Self::Function(_) => &[Execute],
            Self::Key(_) => &[Pseudonymize, Encrypt, Decrypt],
            Self::Purpose(_) => &[Usage],
        }
    }

    /// `table`, `all tables`, `schema`, …
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Table(_) => "table",
            Self::Tables(_) => "all tables",
            Self::Schema(_) => "schema",
            Self::Model(_) => "model",
            Self::Models(_) => "all models",
            Self::Function(_) => "function",
            Self::Key(_) => "key",
            Self::Purpose(_) => "purpose",
        }
    }

    /// The schema that the object is or lies in.
    pub fn schema(&self) -> Option<&str> {
        match self {
            Self::Table(name) | Self::Model(name) => Some(&name.schema),
            Self::Tables(schema) | Self::Schema(schema) | Self::Models(schema) => Some(schema),
            Self::Function(_) | Self::Key(_) | Self::Purpose(_) => None,
        }
    }

    /// The object's own name, when it has one beside its schema.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Table(name) | Self::Model(name) => Some(&name.name),
            Self::Function(name) | Self::Key(name) | Self::Purpose(name) => Some(name),
            Self::Tables(_) | Self::Schema(_) | Self::Models(_) => None,
        }
    }
}

impl fmt::Display for Securable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(name) => write!(formatter, "{name}"),
            Self::Tables(schema) => write!(formatter, "ALL TABLES IN SCHEMA {schema}"),
            Self::Schema(schema) => write!(formatter, "SCHEMA {schema}"),
            Self::Model(name) => write!(formatter, "MODEL {name}"),
            Self::Models(schema) => write!(formatter, "ALL MODELS IN SCHEMA {schema}"),
            Self::Function(name) => write!(formatter, "FUNCTION {name}"),
            Self::Key(name) => write!(formatter, "KEY {name}"),
            Self::Purpose(name) => write!(formatter, "PURPOSE {name}"),
        }
    }
}

/// Who holds a grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grantee {
    /// A user.
    User(String),
    /// Whoever holds a role.
    Role(String),
    /// Everybody.
    Public,
}

impl Grantee {
    /// `user`, `role` or `public`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Role(_) => "role",
            Self::Public => "public",
        }
    }

    /// The user's or role's name.
    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Role(name) => name,
            Self::Public => "public",
        }
    }
}

impl fmt::Display for Grantee {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(formatter, "USER {name}"),
            Self::Role(name) => write!(formatter, "ROLE {name}"),
            Self::Public => formatter.write_str("PUBLIC"),
        }
    }
}

/// One privilege on one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What it allows.
    pub privilege: Privilege,
    /// On what.
    pub on: Securable,
    /// The columns that SELECT reaches; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<BTreeSet<String>>,
    /// Who granted it.
    pub by: String,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
}

/// Adds a grant to those held; columns add up, and the whole table takes the columns in. Whether
/// anything changed.
pub fn add(held: &mut Vec<Grant>, new: Grant) -> bool {
    let same = |old: &&mut Grant| old.privilege == new.privilege && old.on == new.on;
    let Some(old) = held.iter_mut().find(same) else {
        held.push(new);
        return true;
    };
    let columns = match (&old.columns, new.columns) {
        (None, _) | (_, None) => None,
        (Some(old), Some(new)) => Some(old.union(&new).cloned().collect()),
    };
    if old.columns == columns {
        return false;
    }
    *old = Grant { columns, by: new.by, at_ms: new.at_ms, ..old.clone() };
    true
}

/// Takes a privilege away, wholly or for some columns of a grant by column. Whether anything
/// changed.
pub fn remove(
    held: &mut Vec<Grant>,
    privilege: Privilege,
    on: &Securable,
    columns: Option<&BTreeSet<String>>,
) -> bool {
    let before = held.clone();
    held.retain_mut(|grant| {
        if grant.privilege != privilege || grant.on != *on {
            return true;
        }
        let (Some(of), Some(gone)) = (&mut grant.columns, columns) else {
            // Without columns all goes; a grant on the whole table has no column to take.
            return columns.is_some();
        };
        of.retain(|column| !gone.contains(column));
        !of.is_empty()
    });
    *held != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(columns: Option<&[&str]>) -> Grant {
        let columns = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let on = Securable::Table(ObjectName::new("main", "t"));
        Grant { privilege: Privilege::Select, on, columns, by: "root".into(), at_ms: 1 }
    }

    #[test]
    fn columns_add_up_and_the_whole_table_takes_them_in() {
        let mut held = Vec::new();
        assert!(add(&mut held, select(Some(&["a"]))));
        assert!(add(&mut held, select(Some(&["b"]))));
        assert!(!add(&mut held, select(Some(&["a"]))));
        assert_eq!(held[0].columns.as_ref().unwrap().len(), 2);
        assert!(add(&mut held, select(None)));
        assert!(!add(&mut held, select(Some(&["a"]))));
        assert_eq!((held.len(), &held[0].columns), (1, &None));
    }

    #[test]
    fn what_is_taken_away_is_gone_and_nothing_else() {
        let on = Securable::Table(ObjectName::new("main", "t"));
        let mut held = vec![select(Some(&["a", "b"]))];
        let a = BTreeSet::from(["a".to_owned()]);
        assert!(!remove(&mut held, Privilege::Insert, &on, None));
        assert!(remove(&mut held, Privilege::Select, &on, Some(&a)));
        assert!(!remove(&mut held, Privilege::Select, &on, Some(&a)));
        let b = BTreeSet::from(["b".to_owned()]);
        assert!(remove(&mut held, Privilege::Select, &on, Some(&b)));
        assert!(held.is_empty());
        let mut held = vec![select(None)];
        assert!(!remove(&mut held, Privilege::Select, &on, Some(&a)));
        assert!(remove(&mut held, Privilege::Select, &on, None));
        assert!(held.is_empty());
    }

    #[test]
    fn a_grant_reads_back_as_it_was_written() {
        for grant in [select(None), select(Some(&["a"]))] {
            let text = serde_json::to_string(&grant).unwrap();
            assert_eq!(serde_json::from_str::<Grant>(&text).unwrap(), grant, "{text}");
        }
    }
}
