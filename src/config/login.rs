//! From the configuration to certificates and credentials: `[server] tls_…`, `[auth]`,
//! `[auth.oidc]`.

use std::time::Duration;

use catalog::Secret;
use catalog::tokens::SESSION_LIFETIME_MS_MAX;
use jsonwebtoken::Algorithm;
use url::{Host, Url};

use super::Config;
use super::convert::secret_text;
use super::fault::Fault;
use super::sections::OidcSection;
use crate::auth::CredentialOptions;
use crate::auth::certificates::{CertificateName, CertificateUsers};
use crate::auth::jwks::KeySource;
use crate::auth::oidc::OidcOptions;
use crate::error::{Error, Result};
use crate::server::tls::TlsFiles;

/// A signing secret has at least so many characters: as many as HS256 has bytes.
const SECRET_CHARS_MIN: usize = 32;

impl Config {
    /// Where the server's certificates are; `None` for plain text.
    pub fn tls_files(&self) -> Option<TlsFiles> {
        let server = &self.server;
        Some(TlsFiles {
            certificate: server.tls_certificate_file.clone()?,
            key: server.tls_key_file.clone()?,
            client_ca: server.tls_client_ca_file.clone(),
            client_required: server.tls_client == "required",
        })
    }

    /// What is accepted beside passwords and API tokens.
    ///
    /// # Errors
    /// When the file with the signing secrets cannot be read or holds a short one.
    pub fn credentials(&self) -> Result<CredentialOptions> {
        let certificates = self.server.tls_client_ca_file.as_ref().map(|_| CertificateUsers {
            name: certificate_name(&self.server.tls_client_name)
                .unwrap_or(CertificateName::CommonName),
            users: self.server.tls_client_users.clone(),
        });
        let oidc = self.oidc.as_ref().and_then(oidc_options);
        Ok(CredentialOptions { token_secrets: self.token_secrets()?, oidc, certificates })
    }

    fn token_secrets(&self) -> Result<Vec<Secret>> {
        let given = self.auth.token_secret.clone().map(|hidden| hidden.0);
        let text = secret_text(given, self.auth.token_secret_file.as_deref())?;
        let text = text.unwrap_or_default();
        let secrets: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if secrets.iter().any(|secret| secret.chars().count() < SECRET_CHARS_MIN) {
            let message =
                format!("[auth] holds a token secret of less than {SECRET_CHARS_MIN} characters");
            let hint = "make one with: openssl rand -hex 32";
            return Err(Error::Config(vec![Fault::new(message, Some(hint.into()))]));
        }
        Ok(secrets.into_iter().map(Secret::new).collect())
    }

    /// What does not fit together in these sections.
    pub(super) fn login_faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |message: &str, hint: &str| {
            faults.push(Fault::new(message, Some(hint.to_owned())));
        };
        let server = &self.server;
        if server.tls_client_ca_file.is_some() && server.tls_certificate_file.is_none() {
            fault(
                "[server] tls_client_ca_file needs the server's own certificate",
                "add tls_certificate_file and tls_key_file",
            );
        }
        if !matches!(server.tls_client.as_str(), "optional" | "required") {
            fault("[server] tls_client is neither optional nor required", "write one of them");
        }
        if server.tls_client == "required" && server.tls_client_ca_file.is_none() {
            fault("[server] tls_client is required without tls_client_ca_file", "name the file");
        }
        if certificate_name(&server.tls_client_name).is_none() {
            fault("[server] tls_client_name is not cn, email or uri", "write one of them");
        }
        let auth = &self.auth;
        if auth.token_secret.is_some() && auth.token_secret_file.is_some() {
            fault("[auth] has both token_secret and token_secret_file", "give one of them");
        }
        let lifetime_max = Duration::from_millis(SESSION_LIFETIME_MS_MAX.unsigned_abs());
        if auth.session_lifetime > lifetime_max || auth.session_lifetime.is_zero() {
            fault("[auth] session_lifetime is not between a second and thirty days", "write 24 h");
        }
        if auth.sessions_max == 0 || auth.sessions_per_user_max == 0 {
            fault("[auth] allows no session", "give sessions_max and sessions_per_user_max");
        }
        if let Some(oidc) = &self.oidc {
            faults.extend(oidc_faults(oidc));
        }
        faults
    }
}

fn oidc_faults(oidc: &OidcSection) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |message: &str, hint: &str| {
        faults.push(Fault::new(format!("[auth.oidc] {message}"), Some(hint.to_owned())));
    };
    if oidc.issuer.is_empty() {
        fault("has no issuer", "add issuer = \"https://login.example.org\"");
    }
    if oidc.audience.is_empty() || oidc.audience.iter().any(String::is_empty) {
        fault("has no audience", "tokens for other services would be accepted: name ours");
    }
    match (&oidc.jwks_file, &oidc.jwks_url) {
        (Some(_), None) => {}
        (None, Some(url)) if is_safe(url) => {}
        (None, Some(_)) => {
            fault("jwks_url is no https:// address", "keys that travel in the clear can be forged");
        }
        _ => fault("needs exactly one of jwks_file and jwks_url", "the provider's keys"),
    }
    if oidc.algorithms.is_empty() || !oidc.algorithms.iter().all(|name| algorithm(name).is_some()) {
        fault("algorithms may hold RS256, ES256 and EdDSA only", "leave it out to allow the three");
    }
    if oidc.leeway > Duration::from_secs(600) {
        fault("leeway is longer than ten minutes", "set the clocks instead");
    }
    faults
}

/// HTTPS, or this machine.
fn is_safe(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && here)
}

fn oidc_options(oidc: &OidcSection) -> Option<OidcOptions> {
    let keys = match (&oidc.jwks_file, &oidc.jwks_url) {
        (Some(file), _) => KeySource::File(file.clone()),
        (None, Some(url)) => KeySource::Url(url.clone()),
        (None, None) => return None,
    };
    Some(OidcOptions {
        issuer: oidc.issuer.clone(),
        audiences: oidc.audience.clone(),
        keys,
        user_claim: oidc.user_claim.clone(),
        user_prefix: oidc.user_prefix.clone(),
        roles_claim: oidc.roles_claim.clone(),
        roles: oidc.roles.clone(),
        algorithms: oidc.algorithms.iter().filter_map(|name| algorithm(name)).collect(),
        leeway: oidc.leeway,
        refresh: oidc.refresh,
    })
}

fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

fn certificate_name(name: &str) -> Option<CertificateName> {
    match name {
        "cn" => Some(CertificateName::CommonName),
        "email" => Some(CertificateName::Email),
        "uri" => Some(CertificateName::Uri),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Overrides};

    fn faults(text: &str) -> String {
        match Config::parse(text) {
            Err(Error::Config(faults)) => {
                faults.into_iter().map(|fault| fault.message + "\n").collect()
            }
            other => panic!("expected faults, got {other:?}"),
        }
    }

    const OIDC: &str =
        "[auth.oidc]\nissuer = \"https://id.example.org\"\naudience = [\"attune\"]\n";

    #[test]
    fn a_provider_is_read_whole() {
        let text = format!(
            "{OIDC}jwks_url = \"https://id.example.org/keys\"\nroles_claim = \"realm.roles\"\n\
             roles = {{ \"data-science\" = \"analyst\" }}\nalgorithms = [\"EdDSA\"]\n"
        );
        let oidc = Config::parse(&text).unwrap().credentials().unwrap().oidc.unwrap();
        assert_eq!(oidc.keys, KeySource::Url("https://id.example.org/keys".into()));
        assert_eq!(oidc.algorithms, [Algorithm::EdDSA]);
        assert_eq!(oidc.roles["data-science"], "analyst");
        assert_eq!(oidc.user_claim, "sub");
    }

    #[test]
    fn a_provider_that_would_let_strangers_in_is_refused() {
        let keys = "jwks_url = \"https://id.example.org/keys\"\n";
        for (text, message) in [
            (OIDC.to_owned(), "exactly one of jwks_file and jwks_url"),
            (format!("{OIDC}jwks_url = \"http://id.example.org/keys\"\n"), "no https:// address"),
            (format!("{OIDC}{keys}algorithms = [\"HS256\"]\n"), "algorithms may hold"),
            (format!("{OIDC}{keys}algorithms = [\"none\"]\n"), "algorithms may hold"),
            (format!("[auth.oidc]\nissuer = \"x\"\n{keys}"), "has no audience"),
            (format!("[auth.oidc]\naudience = [\"a\"]\n{keys}"), "has no issuer"),
        ] {
            assert!(faults(&text).contains(message), "{text}");
        }
        let here = format!("{OIDC}jwks_url = \"http://127.0.0.1:1/keys\"\n");
        assert!(Config::parse(&here).is_ok());
    }

    #[test]
    fn secrets_are_long_and_stand_one_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets");
        let text = format!("[auth]\ntoken_secret_file = {:?}\n", file.display().to_string());
        std::fs::write(&file, format!("{}\n\n{}\n", "n".repeat(32), "o".repeat(40))).unwrap();
        let secrets = || Config::parse(&text).unwrap().credentials().map(|all| all.token_secrets);
        assert_eq!(secrets().unwrap().len(), 2);
        std::fs::write(&file, "short\n").unwrap();
        assert!(secrets().unwrap_err().render(false).contains("openssl rand"));
        let environment = Environment::from([
            ("ATTUNE_AUTH_TOKEN_SECRET", "0123456789abcdef0123456789abcdef"),
            ("ATTUNE_AUTH_OIDC_ISSUER", "x"),
        ]);
        let error = Config::load(&Overrides::default(), &environment).unwrap_err();
        assert!(error.render(false).contains("[auth.oidc] has no audience"));
    }

    #[test]
    fn mutual_tls_needs_its_files_and_known_words() {
        for (text, message) in [
            ("[server]\ntls_client_ca_file = \"ca.pem\"\n", "the server's own certificate"),
            ("[server]\ntls_client = \"perhaps\"\n", "neither optional nor required"),
            ("[server]\ntls_client = \"required\"\n", "without tls_client_ca_file"),
            ("[server]\ntls_client_name = \"dn\"\n", "not cn, email or uri"),
            ("[auth]\nsession_lifetime = \"800 h\"\n", "thirty days"),
            ("[auth]\nsessions_max = 0\n", "no session"),
        ] {
            assert!(faults(text).contains(message), "{text}");
        }
    }
}
