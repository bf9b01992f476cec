//! What a warehouse table is made with.

use crate::personal_columns::PersonalColumns;
use crate::policy::{Carried, RuleSet};
use crate::purposes::ConsentPolicy;
use crate::registry::ManagedTable;

/// What a warehouse table is made with, besides its rows.
#[derive(Debug, Clone, Default)]
pub struct NewTable {
    /// The columns by which rows are sorted, now and whenever some are written later, in small
    /// pages that a look-up reads alone; none: as they come.
    pub cluster_by: Vec<String>,
    /// The policies and tags that it brings along, and that stay with its name.
    pub carried: RuleSet,
    /// The consent policies that it inherits, and that go with it.
    pub consents: Vec<ConsentPolicy>,
}

impl NewTable {
    /// A table whose rows are sorted, and under no policies.
    pub fn clustered(cluster_by: &[String]) -> Self {
        Self { cluster_by: cluster_by.to_vec(), ..Self::default() }
    }

    /// What is said of it where its rows are in a folder.
    pub(crate) fn in_folder(&self, folder: String) -> ManagedTable {
        let carried = Carried::of(&self.carried, &folder);
        let consents = self.consents.clone();
        ManagedTable { carried, consents, ..ManagedTable::new(folder, self.cluster_by.clone()) }
    }

    /// Adds the columns of which its policies and tags say that they hold personal data.
    pub(crate) fn add_personal(&self, personal: &mut PersonalColumns) {
        personal.add_tagged(&self.carried);
        self.consents.iter().for_each(|policy| personal.add(&policy.subject));
    }
}
