//! Session tokens: JWTs that name a session, its user and its end, signed with HMAC-SHA256.
//!
//! The algorithm is pinned: whatever a token's header says, it is checked as HS256 with one of our
//! own secrets, so `none` and a public key taken for a secret get nowhere. The header's `kid` says
//! which secret, so that secrets can be replaced while tokens of the old one still live.
//!
//! Secrets come from the configuration, else from the warehouse, where a new one is made every
//! thirty days and all servers share it. A warehouse that cannot be written cannot tell other
//! servers of a revocation either: then the secret is this process's own and so are its tokens.

use std::collections::HashMap;
use std::sync::Arc;

use catalog::{Catalog, Secret};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Refusal;

const ISSUER: &str = "attune";
const AUDIENCE: &str = "attune-session";
/// A longer text is no token of ours.
const BYTES_MAX: usize = 2_048;
/// A period's key that is not there is looked for again after so long.
const MISSING_MS: i64 = 10_000;
/// Servers' clocks may differ by so much.
const SKEW_MS: i64 = 30_000;
/// A token whose signature was checked is known again for so long: a client shows it with each
/// call, three times for one look-up.
const CHECKED_MS: i64 = 60_000;
/// So many of them at most.
const CHECKED_MAX: usize = 4_096;

/// What a session token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The session's id.
    pub id: String,
    /// The user's name.
    pub user: String,
    /// What the user's record said at the login.
    pub stamp: String,
    /// When the token ends, in Unix milliseconds.
    pub until_ms: i64,
}

/// Signs and checks session tokens.
pub struct SessionTokens {
    keys: Keys,
    /// Whether another process may know the secrets.
    shared: bool,
    /// Tokens checked lately, by their hash, and when.
    checked: Mutex<HashMap<String, (Claims, i64)>>,
}

/// A secret of the warehouse, none where there is none, and when it was looked for.
type Known = (Option<Arc<Secret>>, i64);

enum Keys {
    /// The first signs, all check.
    Given(Vec<(String, Secret)>),
    Shared {
        catalog: Arc<Catalog>,
        known: Mutex<HashMap<i64, Known>>,
    },
}

impl SessionTokens {
    /// Tokens signed with configured secrets, or with the warehouse's when there are none.
    pub async fn open(secrets: Vec<Secret>, catalog: &Arc<Catalog>) -> Result<Self, Refusal> {
        if !secrets.is_empty() {
            return Ok(Self::given(secrets, true));
        }
        match catalog.signing_key(catalog.signing_period()).await {
            Err(error @ catalog::Error::ReadOnly { .. }) => {
                tracing::warn!("session tokens are good on this server only: {error}");
                Self::own()
            }
            // Another error may pass; whoever logs in meanwhile is told.
            _ => {
                let (catalog, known) = (Arc::clone(catalog), Mutex::default());
                let keys = Keys::Shared { catalog, known };
                Ok(Self { keys, shared: true, checked: Mutex::default() })
            }
        }
    }

    /// Tokens that only this process makes and knows.
    pub fn own() -> Result<Self, Refusal> {
        let secret = super::live::random_text(32);
        let secret = secret.map_err(|error| Refusal::Random(error.to_string()))?;
        Ok(Self::given(vec![Secret::new(secret)], false))
    }

    fn given(secrets: Vec<Secret>, shared: bool) -> Self {
        let named = |secret: Secret| (key_id(&secret), secret);
        let keys = Keys::Given(secrets.into_iter().map(named).collect());
        Self { keys, shared, checked: Mutex::default() }
    }

    /// Whether another server may accept these tokens.
    pub fn are_shared(&self) -> bool {
        self.shared
    }

    /// A token.
    pub async fn sign(&self, claims: &Claims, now_ms: i64) -> Result<String, Refusal> {
        let body = json!({
            "jti": claims.id,
            "sub": claims.user,
            "iat": now_ms / 1_000,
            "exp": claims.until_ms / 1_000,
            "stp": claims.stamp,
        });
        self.seal(AUDIENCE, body, now_ms).await
    }

    /// Signs something else of ours with the same secrets, such as a ticket that any replica
    /// serves; `audience` keeps the kinds apart.
    pub async fn seal(
        &self,
        audience: &str,
        mut body: Value,
        now_ms: i64,
    ) -> Result<String, Refusal> {
        let (id, secret) = match &self.keys {
            Keys::Given(keys) => keys.first().cloned().ok_or(Refusal::Token)?,
            Keys::Shared { catalog, .. } => {
                let period = catalog.signing_period();
                let key = self.shared_key(period, now_ms).await?.ok_or(Refusal::Token)?;
                (period.to_string(), Secret::clone(&key))
            }
        };
        let header = Header { kid: Some(id), ..Header::new(Algorithm::HS256) };
        body["iss"] = ISSUER.into();
        body["aud"] = audience.into();
        let key = EncodingKey::from_secret(secret.reveal().as_bytes());
        jsonwebtoken::encode(&header, &body, &key).map_err(|_| Refusal::Token)
    }

    /// What a token says, when one of our secrets signed it and it has not ended.
    pub async fn read(&self, token: &str, now_ms: i64) -> Result<Claims, Refusal> {
        if token.len() > BYTES_MAX {
            return Err(Refusal::Token);
        }
        let hash = catalog::tokens::digest(token);
        let checked = self.checked.lock().get(&hash).cloned();
        let claims = match checked {
            Some((claims, at_ms)) if (at_ms..at_ms + CHECKED_MS).contains(&now_ms) => claims,
            _ => {
                let claims = self.check(token, now_ms).await?;
                self.remember(hash, claims.clone(), now_ms);
                claims
            }
        };
        if now_ms >= claims.until_ms { Err(Refusal::Token) } else { Ok(claims) }
    }

    fn remember(&self, hash: String, claims: Claims, now_ms: i64) {
        let mut checked = self.checked.lock();
        if checked.len() >= CHECKED_MAX {
            checked.retain(|_, (_, at_ms)| (*at_ms..*at_ms + CHECKED_MS).contains(&now_ms));
        }
        if checked.len() < CHECKED_MAX {
            checked.insert(hash, (claims, now_ms));
        }
    }

    /// What a token says, when one of our secrets signed it.
    async fn check(&self, token: &str, now_ms: i64) -> Result<Claims, Refusal> {
        let body = self.unseal(AUDIENCE, token, now_ms).await?;
        let text = |name: &str| body.get(name)?.as_str().map(str::to_owned);
        let seconds = |name: &str| body.get(name)?.as_i64();
        let claims = || {
            let until_ms = seconds("exp")?.checked_mul(1_000)?;
            let issued_ms = seconds("iat")?.checked_mul(1_000)?;
            (issued_ms <= now_ms + SKEW_MS).then_some(())?;
            Some(Claims { id: text("jti")?, user: text("sub")?, stamp: text("stp")?, until_ms })
        };
        claims().ok_or(Refusal::Token)
    }

    /// What [`Self::seal`] signed for this audience. Its end, `exp`, is for the caller to check,
    /// against the server's own clock.
    pub async fn unseal(&self, audience: &str, token: &str, now_ms: i64) -> Result<Value, Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Token)?;
        let id = header.kid.filter(|_| header.alg == Algorithm::HS256).ok_or(Refusal::Token)?;
        let secret = self.secret(&id, now_ms).await?.ok_or(Refusal::Token)?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[audience]);
        let key = DecodingKey::from_secret(secret.reveal().as_bytes());
        let body = jsonwebtoken::decode::<Value>(token, &key, &validation);
        Ok(body.map_err(|_| Refusal::Token)?.claims)
    }

    async fn secret(&self, id: &str, now_ms: i64) -> Result<Option<Arc<Secret>>, Refusal> {
        match &self.keys {
            Keys::Given(keys) => {
                let found = keys.iter().find(|(known, _)| known == id);
                Ok(found.map(|(_, secret)| Arc::new(secret.clone())))
            }
            Keys::Shared { .. } => match id.parse() {
                Ok(period) => self.shared_key(period, now_ms).await,
                Err(_) => Ok(None),
            },
        }
    }

    async fn shared_key(&self, period: i64, now_ms: i64) -> Result<Option<Arc<Secret>>, Refusal> {
        let Keys::Shared { catalog, known } = &self.keys else { return Ok(None) };
        // A forged `kid` must neither cost a look into the warehouse nor room in memory.
        let now = catalog.signing_period();
        if !(now - 1..=now + 1).contains(&period) {
            return Ok(None);
        }
        match known.lock().get(&period) {
            Some((Some(key), _)) => return Ok(Some(Arc::clone(key))),
            Some((None, at_ms)) if (*at_ms..at_ms + MISSING_MS).contains(&now_ms) => {
                return Ok(None);
            }
            _ => {}
        }
        let key = catalog.signing_key(period).await?;
        let mut known = known.lock();
        known.retain(|known, _| *known >= now - 1);
        known.insert(period, (key.clone(), now_ms));
        Ok(key)
    }
}

/// The first eight bytes of the secret's hash.
fn key_id(secret: &Secret) -> String {
    let hash = catalog::tokens::digest(format!("attune key id:{}", secret.reveal()));
    hash.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn secret(text: &str) -> Secret {
        Secret::new(text.repeat(8))
    }

    fn claims() -> Claims {
        Claims {
            id: "9b2".into(),
            user: "ada".into(),
            stamp: "s".into(),
            until_ms: NOW_MS + 60_000,
        }
    }

    /// A token made by hand, with a header and a signature of one's choice.
    fn forged(header: &Value, body: &Value, key: Option<&str>) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(body));
        let signature = key.map(|key| {
            let key = EncodingKey::from_secret(key.as_bytes());
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap()
        });
        format!("{message}.{}", signature.unwrap_or_default())
    }

    #[tokio::test]
    async fn a_token_says_what_was_signed_until_its_end() {
        let tokens = SessionTokens::given(vec![secret("abcd")], true);
        let token = tokens.sign(&claims(), NOW_MS).await.unwrap();
        assert_eq!(tokens.read(&token, NOW_MS).await.unwrap(), claims());
        assert!(tokens.read(&token, NOW_MS + 60_000).await.is_err());
        assert!(tokens.read(&token, NOW_MS - 60_000).await.is_err(), "issued in the future");
    }

    #[tokio::test]
    async fn a_token_known_already_ends_as_it_says() {
        let tokens = SessionTokens::given(vec![secret("abcd")], true);
        let short = Claims { until_ms: NOW_MS + 10_000, ..claims() };
        let token = tokens.sign(&short, NOW_MS).await.unwrap();
        for later_ms in [0, 9_999] {
            assert_eq!(tokens.read(&token, NOW_MS + later_ms).await.unwrap(), short);
        }
        assert!(tokens.read(&token, NOW_MS + 10_000).await.is_err());
        let changed = format!("{token}x");
        assert!(tokens.read(&changed, NOW_MS).await.is_err());
        for number in 0..2 * CHECKED_MAX {
            let other = Claims { id: number.to_string(), ..claims() };
            tokens.remember(number.to_string(), other, NOW_MS);
        }
        assert_eq!(tokens.checked.lock().len(), CHECKED_MAX);
        tokens.remember("later".into(), claims(), NOW_MS + CHECKED_MS);
        assert_eq!(tokens.checked.lock().len(), 1);
    }

    #[tokio::test]
    async fn an_older_secret_still_checks_and_a_strange_one_does_not() {
        let old = SessionTokens::given(vec![secret("abcd")], true);
        let token = old.sign(&claims(), NOW_MS).await.unwrap();
        let both = SessionTokens::given(vec![secret("new!"), secret("abcd")], true);
        assert!(both.read(&token, NOW_MS).await.is_ok());
        let new = both.sign(&claims(), NOW_MS).await.unwrap();
        assert!(old.read(&new, NOW_MS).await.is_err());
    }

    #[tokio::test]
    async fn nothing_else_is_a_token() {
        let given = secret("abcd");
        let id = key_id(&given);
        let tokens = SessionTokens::given(vec![given.clone()], true);
        let good = tokens.sign(&claims(), NOW_MS).await.unwrap();
        let body = json!({ "iss": ISSUER, "aud": AUDIENCE, "jti": "9b2", "sub": "root",
            "iat": NOW_MS / 1_000, "exp": NOW_MS / 1_000 + 60, "stp": "s" });
        let header = |alg: &str| json!({ "alg": alg, "typ": "JWT", "kid": id });
        let key = Some(given.reveal());
        assert!(tokens.read(&forged(&header("HS256"), &body, key), NOW_MS).await.is_ok());
        let with = |name: &str, value: Value| {
            let mut changed = body.clone();
            changed[name] = value;
            forged(&header("HS256"), &changed, key)
        };
        let (head, rest) = good.split_once('.').unwrap();
        let (middle, signature) = rest.split_once('.').unwrap();
        let root = BASE64_URL_SAFE_NO_PAD.encode(body.to_string());
        let wrong = [
            forged(&header("none"), &body, None),
            forged(&header("None"), &body, None),
            forged(&header("HS256"), &body, None),
            forged(&header("HS512"), &body, key),
            forged(&header("RS256"), &body, key),
            forged(&header("HS256"), &body, Some("guessed")),
            forged(&json!({ "alg": "HS256" }), &body, key),
            with("aud", json!("another")),
            with("iss", json!("another")),
            with("exp", json!("never")),
            with("exp", json!(NOW_MS / 1_000)),
            with("jti", Value::Null),
            format!("{head}.{root}.{signature}"),
            format!("{head}.{middle}."),
            good[..good.len() - 1].to_owned(),
            format!("{good}."),
            "x".repeat(BYTES_MAX + 1),
            "a.b.c".into(),
            "..".into(),
            String::new(),
        ];
        for token in wrong {
            assert!(tokens.read(&token, NOW_MS).await.is_err(), "{token}");
        }
    }
}
