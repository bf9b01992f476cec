//! What a warehouse table is made with.

use crate::policy::{Carried, RuleSet};
use crate::registry::ManagedTable;

/// What a warehouse table is made with, besides its rows.
#[derive(Debug, Clone, Default)]
pub struct NewTable {
    /// The columns by which rows are sorted, now and whenever some are written later, in small
    /// pages that a look-up reads alone; none: as they come.
    pub cluster_by: Vec<String>,
    /// The policies and tags that it brings along.
    pub carried: RuleSet,
}

impl NewTable {
    /// A table whose rows are sorted, and under no policies.
    pub fn clustered(cluster_by: &[String]) -> Self {
        Self { cluster_by: cluster_by.to_vec(), carried: RuleSet::default() }
    }

    /// What is said of it where its rows are in a folder.
    pub(crate) fn in_folder(&self, folder: String) -> ManagedTable {
        let carried = Carried::of(&self.carried, &folder);
        ManagedTable { carried, ..ManagedTable::new(folder, self.cluster_by.clone()) }
    }
}
