//! Tokens of an identity provider (OpenID Connect): who its claims say it is.
//!
//! A token counts when one of the provider's keys signed it with an allowed algorithm, its issuer
//! and audience are the configured ones, and it is neither too old nor too young. The principal's
//! name and roles come from its claims; a role that does not exist here is left out, and the log
//! names it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use catalog::Catalog;
use catalog::policy::Principal;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::Value;

use super::jwks::{KeySet, KeySource};
use super::{Login, Proof, Refusal};

/// A longer text is no token.
const BYTES_MAX: usize = 16_384;
/// Characters of a principal's name.
const NAME_CHARS_MAX: usize = 128;
/// Schemas that a principal's name must not be, beside the lakes'.
const TAKEN: [&str; 4] = ["main", "system", "information_schema", "local"];

/// How a provider's tokens are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcOptions {
    /// The `iss` claim.
    pub issuer: String,
    /// One of these is in the `aud` claim.
    pub audiences: Vec<String>,
    /// Where the provider's keys are.
    pub keys: KeySource,
    /// The claim that holds the user's name.
    pub user_claim: String,
    /// Stands in front of each name, to keep the provider's users apart from the warehouse's.
    pub user_prefix: String,
    /// The claim that holds the roles: a list, or words in a text. Dots lead into objects.
    pub roles_claim: Option<String>,
    /// From the provider's roles to ours; what is not in it is taken as it is.
    pub roles: BTreeMap<String, String>,
    /// The algorithms that are allowed.
    pub algorithms: Vec<Algorithm>,
    /// Clocks may differ by so much.
    pub leeway: Duration,
    /// The keys are read again after so long.
    pub refresh: Duration,
}

/// Reads tokens of one provider.
pub struct Oidc {
    options: OidcOptions,
    keys: KeySet,
    catalog: Arc<Catalog>,
}

impl Oidc {
    /// For the provider that `options` describe.
    pub fn new(options: OidcOptions, catalog: &Arc<Catalog>) -> Self {
        let keys = KeySet::new(options.keys.clone(), options.refresh);
        Self { options, keys, catalog: Arc::clone(catalog) }
    }

    /// Whether a token claims to be the provider's; it is not checked.
    pub fn is_meant(token: &str) -> bool {
        let header = jsonwebtoken::decode_header(token);
        header.is_ok_and(|header| header.alg != Algorithm::HS256)
    }

    /// How many keys the provider gives now.
    ///
    /// # Errors
    /// When it gives no key set.
    pub async fn try_keys(&self) -> Result<usize, String> {
        self.keys.read().await.map(|keys| keys.len())
    }

    /// Who the token says it is.
    pub async fn login(&self, token: &str, now: Instant) -> Result<Login, Refusal> {
        if token.len() > BYTES_MAX {
            return Err(Refusal::Token);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Token)?;
        // Extensions that a token calls critical would have to be understood.
        if !self.options.algorithms.contains(&header.alg) || header.crit.is_some() {
            return Err(Refusal::Token);
        }
        let id = header.kid.ok_or(Refusal::Token)?;
        let key = self.keys.key(header.alg, &id, now).await.ok_or(Refusal::Token)?;
        let mut validation = Validation::new(header.alg);
        // Times are checked below, against the server's own clock.
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(&self.options.audiences);
        let claims = jsonwebtoken::decode::<Value>(token, &key, &validation);
        let claims = claims.map_err(|_| Refusal::Token)?.claims;
        let until_ms = self.valid_until(&claims, self.catalog.now_ms()).ok_or(Refusal::Token)?;
        let principal = self.principal(&claims).await?;
        Ok(Login { principal, proof: Proof::Provider { until_ms }, purpose: None, delegated: true })
    }

    /// When the token ends, in Unix milliseconds, leeway included.
    fn valid_until(&self, claims: &Value, now_ms: i64) -> Option<i64> {
        let leeway_ms = i64::try_from(self.options.leeway.as_millis()).ok()?;
        let time = |name: &str| match claims.get(name) {
            None => Some(None),
            // Providers may write fractions of a second.
            Some(value) => value.as_f64().map(|seconds| Some((seconds * 1_000.0) as i64)),
        };
        let until_ms = time("exp")??.checked_add(leeway_ms)?;
        let from_ms = time("nbf")?.unwrap_or(i64::MIN).max(time("iat")?.unwrap_or(i64::MIN));
        (now_ms < until_ms && now_ms >= from_ms.saturating_sub(leeway_ms)).then_some(until_ms)
    }

    async fn principal(&self, claims: &Value) -> Result<Principal, Refusal> {
        let claimed = claims.get(&self.options.user_claim).and_then(Value::as_str);
        let name = format!("{}{}", self.options.user_prefix, claimed.ok_or(Refusal::Token)?);
        let schemas = self.catalog.schemas();
        let taken = TAKEN.contains(&name.as_str()) || schemas.contains(&name);
        let length = name.chars().count();
        if taken || length == 0 || length > NAME_CHARS_MAX || name.chars().any(char::is_control) {
            tracing::warn!(?name, "an identity provider's user name cannot be used");
            return Err(Refusal::Token);
        }
        let accounts = self.catalog.accounts().await?;
        let mut roles = BTreeSet::new();
        for claimed in self.claimed_roles(claims) {
            let role = self.options.roles.get(&claimed).unwrap_or(&claimed);
            if accounts.has_role(role) {
                roles.insert(role.clone());
            } else {
                tracing::info!(user = ?name, role = ?claimed, "there is no such role");
            }
        }
        Ok(Principal::new(name, roles))
    }

    fn claimed_roles(&self, claims: &Value) -> Vec<String> {
        let Some(path) = &self.options.roles_claim else { return vec![] };
        // A claim may have dots in its name, as in URLs.
        let found = claims
            .get(path)
            .or_else(|| path.split('.').try_fold(claims, |value, part| value.get(part)));
        match found {
            Some(Value::Array(items)) => {
                items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(Value::String(words)) => words.split_whitespace().map(str::to_owned).collect(),
            _ => vec![],
        }
    }
}
