//! Privacy: what may we know, and in which form may it leave.
//!
//! Pseudonyms, masks, redaction, generalization and encryption, format-preserving or not, as scalar
//! functions; `k_anonymity`, `l_diversity` and `t_closeness` as aggregates that measure a result;
//! [`anonymize`] makes one that they measure well.
//! What each one promises, and what it does not, is in `docs/privacy.md`.
//!
//! Keys and hierarchies are *bound values*. [`functions`] holds every function by name; those
//! that need a key or a hierarchy refuse to be planned in that form. The SQL layer finds the
//! names a statement uses with [`key_argument`] and [`hierarchy_argument`], loads them, and puts
//! the instances from [`bound_functions`] in place for that one statement. Secrets appear
//! in no `Debug`, `Display`, comparison, plan or error: a key shows its name and its id.

use std::sync::Arc;

use datafusion_expr::{AggregateUDF, ScalarUDF};

pub mod anonymize;
mod arguments;
pub(crate) mod bloom;
pub mod bloom_encode;
pub mod bloom_similarity;
mod classes;
pub mod consent_open;
pub mod consent_seal;
mod consent_token;
mod data_keys;
pub mod decrypt;
pub mod decrypt_with;
pub mod encrypt;
pub mod encrypt_deterministic;
pub mod encrypt_with;
mod fpe;
pub mod fpe_decrypt;
pub mod fpe_encrypt;
pub mod generalize;
pub mod generalize_date;
pub mod generalize_number;
pub mod generator;
pub mod hierarchy;
pub mod k_anonymity;
pub mod key;
pub mod keyed;
pub mod l_diversity;
pub mod l_diversity_entropy;
pub mod mask;
pub mod mask_email;
pub mod mask_phone;
pub mod master;
pub mod new_data_key;
pub mod noise;
pub mod pseudonymize;
pub mod random;
pub mod redact;
mod redact_phone;
mod redact_scan;
pub mod rekey;
mod seal;
mod single;
pub mod subject_token;
pub mod t_closeness;

#[cfg(test)]
mod adult_tests;

use keyed::Keyed;

pub use encrypt_deterministic::ciphertext;
pub use hierarchy::{Hierarchy, HierarchySet};
pub use key::{Key, KeyRing, KeySet, KeyUse, UsableKey, key_use};
pub use master::MasterKey;
pub use pseudonymize::pseudonym;
pub use random::Random;
pub use subject_token::{SubjectTokens, Token};

/// The package's scalar functions, in documentation order. Those that need a key or a hierarchy
/// are here without one: they can be listed and documented, not planned.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        udf(pseudonymize::Pseudonymize::unbound()),
        udf(bloom_encode::BloomEncode::unbound()),
        udf(bloom_similarity::BloomSimilarity::default()),
        udf(fpe_encrypt::FpeEncrypt::unbound()),
        udf(fpe_decrypt::FpeDecrypt::unbound()),
        udf(encrypt::Encrypt::unbound()),
        udf(encrypt_deterministic::EncryptDeterministic::unbound()),
        udf(decrypt::Decrypt::unbound()),
        udf(rekey::Rekey::unbound()),
        udf(new_data_key::NewDataKey::unbound()),
        udf(encrypt_with::EncryptWith::unbound()),
        udf(decrypt_with::DecryptWith::unbound()),
        udf(consent_seal::ConsentSeal::unbound()),
        udf(consent_open::ConsentOpen::unbound()),
        udf(mask::Mask::new()),
        udf(mask_email::MaskEmail::new()),
        udf(mask_phone::MaskPhone::new()),
        udf(redact::Redact::new()),
        udf(generalize::Generalize::unbound()),
        udf(generalize_number::GeneralizeNumber::new()),
        udf(generalize_date::GeneralizeDate::new()),
    ]
}

/// The functions of one statement that hold the keys and hierarchies it names.
///
/// Register them over those of [`functions`] for that statement only. Two instances are equal
/// when they hold keys of equal name and id and hierarchies of equal name and content.
pub fn bound_functions(keys: Arc<KeySet>, hierarchies: Arc<HierarchySet>) -> Vec<Arc<ScalarUDF>> {
    vec![
        udf(pseudonymize::Pseudonymize::bound(Arc::clone(&keys))),
        udf(bloom_encode::BloomEncode::bound(Arc::clone(&keys))),
        udf(fpe_encrypt::FpeEncrypt::bound(Arc::clone(&keys))),
        udf(fpe_decrypt::FpeDecrypt::bound(Arc::clone(&keys))),
        udf(encrypt::Encrypt::bound(Arc::clone(&keys))),
        udf(encrypt_deterministic::EncryptDeterministic::bound(Arc::clone(&keys))),
        udf(decrypt::Decrypt::bound(Arc::clone(&keys))),
        udf(rekey::Rekey::bound(Arc::clone(&keys))),
        udf(new_data_key::NewDataKey::bound(Arc::clone(&keys))),
        udf(encrypt_with::EncryptWith::bound(Arc::clone(&keys))),
        udf(decrypt_with::DecryptWith::bound(Arc::clone(&keys))),
        udf(consent_seal::ConsentSeal::bound(Arc::clone(&keys))),
        udf(consent_open::ConsentOpen::bound(keys)),
        udf(generalize::Generalize::bound(hierarchies)),
    ]
}

/// The position, from zero, of the argument of `function_name` that names a key.
pub fn key_argument(function_name: &str) -> Option<usize> {
    key_use(function_name).map(|(position, _)| position)
}

/// The position, from zero, of the argument of `function_name` that names a hierarchy.
pub fn hierarchy_argument(function_name: &str) -> Option<usize> {
    (function_name == "generalize").then_some(1)
}

/// The package's aggregates.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::new_from_impl(k_anonymity::KAnonymity::new())),
        Arc::new(AggregateUDF::new_from_impl(l_diversity::LDiversity::new())),
        Arc::new(AggregateUDF::new_from_impl(l_diversity_entropy::LDiversityEntropy::new())),
        Arc::new(AggregateUDF::new_from_impl(t_closeness::TCloseness::new())),
    ]
}

fn udf(function: impl datafusion_expr::ScalarUDFImpl + 'static) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_documented_and_named_once() {
        let mut names: Vec<String> = functions().iter().map(|f| f.name().to_string()).collect();
        names.extend(aggregates().iter().map(|f| f.name().to_string()));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(functions().iter().all(|f| f.documentation().is_some()));
        assert!(aggregates().iter().all(|f| f.documentation().is_some()));
    }

    #[test]
    fn every_function_that_is_bound_names_what_it_is_bound_to() {
        let bound = bound_functions(Arc::default(), Arc::default());
        for function in &bound {
            let key = key_argument(function.name());
            let hierarchy = hierarchy_argument(function.name());
            assert!(key.is_some() != hierarchy.is_some(), "{}", function.name());
        }
        let others = functions().len() - bound.len();
        let unnamed = functions()
            .iter()
            .filter(|f| key_argument(f.name()).or(hierarchy_argument(f.name())).is_none())
            .count();
        assert_eq!(unnamed, others);
    }
}
