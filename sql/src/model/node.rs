//! What the plan nodes of models have in common.

/// Compares and hashes a plan node by its `key()`: a model counts as its name and version, never
/// as its content, and the output schema follows from the rest.
macro_rules! compared_by_key {
    ($node:ty) => {
        impl PartialEq for $node {
            fn eq(&self, other: &Self) -> bool {
                self.key() == other.key()
            }
        }

        impl Eq for $node {}

        impl std::hash::Hash for $node {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.key().hash(state);
            }
        }

        impl PartialOrd for $node {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                self.key().partial_cmp(&other.key())
            }
        }
    };
}

pub(crate) use compared_by_key;
