//! From a client's certificate to a user's name.
//!
//! TLS has checked the certificate against the configured authorities before it comes here. The
//! name is the subject's common name, or the e-mail address or URI among the alternative names
//! (RFC 5280), as configured; a table may translate it.

use std::collections::BTreeMap;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Which name of a certificate says whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateName {
    /// The subject's common name.
    CommonName,
    /// The alternative name that is an e-mail address.
    Email,
    /// The alternative name that is a URI, such as a SPIFFE id.
    Uri,
}

/// How certificates name users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateUsers {
    /// Which name counts.
    pub name: CertificateName,
    /// From names to users; when it is empty, the name is the user's.
    pub users: BTreeMap<String, String>,
}

impl CertificateUsers {
    /// The user that a certificate stands for at `now_ms`; `None` when it stands for none, or for
    /// more than one, or is not valid at that time.
    pub fn user(&self, der: &[u8], now_ms: i64) -> Option<String> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let seconds = now_ms.div_euclid(1_000);
        if !(validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&seconds) {
            return None;
        }
        let mut users: Vec<String> = self
            .names(&certificate)
            .into_iter()
            .filter_map(|name| match self.users.is_empty() {
                true => Some(name),
                false => self.users.get(&name).cloned(),
            })
            .collect();
        users.dedup();
        match <[String; 1]>::try_from(users) {
            Ok([user]) => Some(user),
            Err(_) => None,
        }
    }

    fn names(&self, certificate: &X509Certificate<'_>) -> Vec<String> {
        if self.name == CertificateName::CommonName {
            let names = certificate.subject().iter_common_name();
            return names.filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
        }
        let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return vec![] };
        let names = alternatives.value.general_names.iter();
        names
            .filter_map(|name| match (self.name, name) {
                (CertificateName::Email, GeneralName::RFC822Name(name))
                | (CertificateName::Uri, GeneralName::URI(name)) => Some((*name).to_owned()),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn certificate(common: &[&str], alternatives: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = alternatives;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn text(text: &str) -> Ia5String {
        text.try_into().unwrap()
    }

    fn user(name: CertificateName, users: &[(&str, &str)], der: &[u8]) -> Option<String> {
        let users = users.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        CertificateUsers { name, users }.user(der, NOW_MS)
    }

    #[test]
    fn the_configured_name_is_the_users() {
        let der = certificate(
            &["ada"],
            vec![
                SanType::Rfc822Name(text("ada@example.org")),
                SanType::URI(text("spiffe://example.org/ada")),
            ],
        );
        let all = |name| user(name, &[], &der);
        assert_eq!(all(CertificateName::CommonName).as_deref(), Some("ada"));
        assert_eq!(all(CertificateName::Email).as_deref(), Some("ada@example.org"));
        assert_eq!(all(CertificateName::Uri).as_deref(), Some("spiffe://example.org/ada"));
        let table = [("spiffe://example.org/ada", "reporting")];
        assert_eq!(user(CertificateName::Uri, &table, &der).as_deref(), Some("reporting"));
        assert_eq!(user(CertificateName::CommonName, &table, &der), None);
    }

    #[test]
    fn none_several_and_expired_are_nobody() {
        let none = certificate(&[], vec![]);
        let addresses = ["a@example.org", "b@example.org"];
        let two = certificate(&[], addresses.map(|a| SanType::Rfc822Name(text(a))).to_vec());
        assert_eq!(user(CertificateName::CommonName, &[], &none), None);
        assert_eq!(user(CertificateName::Email, &[], &two), None);
        let one_known = [("b@example.org", "bob")];
        assert_eq!(user(CertificateName::Email, &one_known, &two).as_deref(), Some("bob"));
        let users = CertificateUsers { name: CertificateName::CommonName, users: BTreeMap::new() };
        let der = certificate(&["ada"], vec![]);
        assert_eq!(users.user(&der, -1_000_000_000_000), None);
        assert_eq!(users.user(b"no certificate", NOW_MS), None);
    }
}
