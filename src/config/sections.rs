//! The sections of the configuration, each field declared once: the declaration gives the struct,
//! the reader of the file, the environment variable and the line in `docs/config.md`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::setting::{ByteSize, FromSetting, Hidden, Listen, Location, Setting};

/// What the documentation and the error messages know of a field.
#[derive(Debug, Clone)]
pub struct Field {
    /// The key in the file.
    pub name: &'static str,
    /// What it means.
    pub about: &'static str,
    /// What may be written.
    pub expects: &'static str,
    /// The default as it would be written; empty when there is none.
    pub default: String,
}

/// A table of the configuration file.
pub trait Section {
    /// The fields in their documented order.
    fn fields() -> Vec<Field>;

    /// Sets one field; `None` when the section has no such field.
    fn set(&mut self, name: &str, setting: &Setting<'_>) -> Option<Result<(), String>>;
}

macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $section:ident {
            $($(#[doc = $doc:literal])+ pub $field:ident: $type:ty = $default:expr,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $section {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl Section for $section {
            fn fields() -> Vec<Field> {
                let defaults = Self::default();
                vec![$(Field {
                    name: stringify!($field),
                    about: concat!($($doc),+),
                    expects: <$type as FromSetting>::EXPECTS,
                    default: defaults.$field.shown(),
                },)+]
            }

            fn set(&mut self, name: &str, setting: &Setting<'_>) -> Option<Result<(), String>> {
                match name {
                    $(stringify!($field) => {
                        Some(FromSetting::from_setting(setting).map(|value| self.$field = value))
                    })+
                    _ => None,
                }
            }
        }
    };
}

section! {
    /// Where files are, and how to reach them: a local folder, or an S3-compatible store.
    pub struct StoreSection {
        /// A local folder, or `s3://bucket/path`.
        pub url: Location = Location::default(),
        /// Address of an S3-compatible store, such as `https://minio.example.org:9000`; without
        /// it, AWS. Else `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` is used.
        pub endpoint: Option<String> = None,
        /// The region; else `AWS_REGION` or `AWS_DEFAULT_REGION`, else `us-east-1`.
        pub region: Option<String> = None,
        /// Put the bucket into the path instead of the host name; by default when an endpoint is
        /// given.
        pub path_style: Option<bool> = None,
        /// Allow an endpoint without TLS.
        pub allow_http: bool = false,
        /// Access key; else `AWS_ACCESS_KEY_ID`.
        pub access_key_id: Option<String> = None,
        /// File that holds the access key.
        pub access_key_id_file: Option<PathBuf> = None,
        /// Secret key; better in a file. Else `AWS_SECRET_ACCESS_KEY`.
        pub secret_access_key: Option<Hidden> = None,
        /// File that holds the secret key.
        pub secret_access_key_file: Option<PathBuf> = None,
        /// Token of temporary credentials; else `AWS_SESSION_TOKEN`.
        pub session_token: Option<Hidden> = None,
    }
}

section! {
    /// What a lake has besides its store.
    pub struct DiscoverySection {
        /// Make every folder below the URL a table named after it.
        pub discover: bool = false,
        /// `read`; or `rewrite`: FORGET SUBJECT writes files anew without the person's rows,
        /// removes those that hold nothing else, and purges the past of Delta tables.
        pub access: String = "read".into(),
    }
}

section! {
    /// One table of a lake.
    pub struct TableSection {
        /// The table's name.
        pub name: String = String::new(),
        /// File or folder, relative to the lake's URL; no pattern with `*`.
        pub location: String = String::new(),
        /// `parquet`, `csv`, `json`, `avro`, `arrow` or `delta`; else told by the file names.
        pub format: Option<String> = None,
        /// Columns that stand in the folder names, as in `day=2026-01-31`.
        pub partitions: Vec<String> = Vec::new(),
        /// Options of the format, such as `{ header = "false", delimiter = ";" }`.
        pub options: BTreeMap<String, String> = BTreeMap::new(),
    }
}

section! {
    /// Where the server listens.
    pub struct ServerSection {
        /// Address of Flight SQL.
        pub flight: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50051),
        /// Address of health and metrics over HTTP.
        pub http: Listen = Listen::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080)),
        /// Address of PostgreSQL's protocol, such as `127.0.0.1:5432`; off by default. Passwords
        /// go over TLS only.
        pub pg: Option<SocketAddr> = None,
        /// So many connections by PostgreSQL's protocol at once.
        pub pg_connections_max: usize = 200,
        /// PEM file with the server's certificate chain; turns TLS on.
        pub tls_certificate_file: Option<PathBuf> = None,
        /// PEM file with the certificate's private key. Both files are read again when they change.
        pub tls_key_file: Option<PathBuf> = None,
        /// PEM file with the authorities whose client certificates are believed; turns mutual TLS
        /// on.
        pub tls_client_ca_file: Option<PathBuf> = None,
        /// `optional`: a client without a certificate may log in otherwise; `required`: it is
        /// turned away.
        pub tls_client: String = "optional".into(),
        /// Which name in a client's certificate is the user's: `cn` (the subject's common name),
        /// `email` or `uri` (alternative names).
        pub tls_client_name: String = "cn".into(),
        /// From names in certificates to users, such as `{ "spiffe://acme/report" = "reporting" }`;
        /// when it is empty, the name is the user.
        pub tls_client_users: BTreeMap<String, String> = BTreeMap::new(),
        /// Listen beyond this machine even without TLS or users.
        pub insecure: bool = false,
        /// Once asked to stop, how long running statements may take to finish.
        pub drain: Duration = Duration::from_secs(30),
        /// How often rows whose retention is over are removed from each warehouse table; they are
        /// read by nobody before. `0`: not by this server.
        pub retention_interval: Duration = Duration::from_secs(86_400),
    }
}

section! {
    /// Logins, sessions and what is kept for clients.
    pub struct AuthSection {
        /// File with the secrets that sign session tokens, one a line of at least 32 characters:
        /// the first signs, all are accepted. By default the warehouse holds one that changes
        /// every thirty days.
        pub token_secret_file: Option<PathBuf> = None,
        /// The same, such as in `ATTUNE_AUTH_TOKEN_SECRET`; better in a file.
        pub token_secret: Option<Hidden> = None,
        /// A session ends after so long without a call.
        pub session_idle: Duration = Duration::from_secs(3_600),
        /// A session and its token end after so long in any case; at most thirty days.
        pub session_lifetime: Duration = Duration::from_secs(86_400),
        /// Sessions of this server together; one more is refused.
        pub sessions_max: usize = 10_000,
        /// Sessions of one user; one more ends the one used longest ago.
        pub sessions_per_user_max: usize = 1_000,
        /// A prepared statement or a result that was asked for ends after so long without use.
        pub handle_idle: Duration = Duration::from_secs(1_800),
        /// Prepared statements of one user, and as many results that were asked for.
        pub handles_per_user_max: usize = 1_000,
    }
}

section! {
    /// An identity provider (OpenID Connect) whose tokens are accepted as bearer tokens.
    pub struct OidcSection {
        /// The issuer, as the tokens' `iss` claim says it.
        pub issuer: String = String::new(),
        /// A token's `aud` claim must hold one of these.
        pub audience: Vec<String> = Vec::new(),
        /// File with the provider's keys (a JSON Web Key Set); give this or `jwks_url`.
        pub jwks_file: Option<PathBuf> = None,
        /// `https://` address of the provider's keys.
        pub jwks_url: Option<String> = None,
        /// The claim that is the user's name.
        pub user_claim: String = "sub".into(),
        /// Put in front of each name, to keep the provider's users apart from the warehouse's.
        pub user_prefix: String = String::new(),
        /// The claim that holds the roles: a list, or words in one text; dots lead into objects.
        pub roles_claim: Option<String> = None,
        /// From the provider's roles to Attune's, such as `{ "data-science" = "analyst" }`; a role
        /// that is not in it is taken as it is.
        pub roles: BTreeMap<String, String> = BTreeMap::new(),
        /// Which of `RS256`, `ES256` and `EdDSA` are allowed.
        pub algorithms: Vec<String> = vec!["RS256".into(), "ES256".into(), "EdDSA".into()],
        /// The provider's clock and ours may differ by so much.
        pub leeway: Duration = Duration::from_secs(60),
        /// The keys are read again after so long, and when a token names an unknown one.
        pub refresh: Duration = Duration::from_secs(3_600),
    }
}

section! {
    /// What one process and one query may use.
    pub struct LimitsSection {
        /// Memory of all queries together; by default half of the machine's.
        pub memory: Option<ByteSize> = None,
        /// Memory of one query; by default half of `memory`.
        pub query_memory: Option<ByteSize> = None,
        /// Memory for loaded models.
        pub model_cache: ByteSize = ByteSize(512 << 20),
        /// Folder for intermediate results that do not fit in memory; by default the system's
        /// temporary folder.
        pub spill_dir: Option<PathBuf> = None,
        /// How much may be written there.
        pub spill: ByteSize = ByteSize(64 << 30),
        /// How long a query may run; by default without end.
        pub query_timeout: Option<Duration> = None,
        /// How many rows a query may return; by default any number.
        pub rows_max: Option<usize> = None,
        /// How large a result may be, as Arrow holds it; by default any size.
        pub result_max: Option<ByteSize> = None,
        /// How many statements run at once; others wait. By default eight a core.
        pub statements_max: Option<usize> = None,
        /// How many statements may wait for their turn; one more is refused.
        pub queue_max: usize = 1000,
        /// How long a statement waits for its turn before it is refused.
        pub queue_wait: Duration = Duration::from_secs(60),
        /// A client that does not read on for this long loses its result; 0: never.
        pub reader_idle: Duration = Duration::from_secs(300),
        /// How long a statement's text may be.
        pub sql_max: ByteSize = ByteSize(1 << 20),
        /// How many partitions a query runs in; by default one a core.
        pub target_partitions: Option<usize> = None,
        /// Threads that train models; by default one a core.
        pub learner_threads: Option<usize> = None,
        /// How long a listing of files may be reused: a new file is seen after at most this.
        pub freshness: Duration = Duration::from_secs(2),
        /// How long ago, in milliseconds, it may have been found out who consents: a withdrawal
        /// counts in each statement that starts after that. 0: each statement looks.
        pub policy_staleness_ms: usize = 1000,
    }
}

section! {
    /// What the server writes to standard error.
    pub struct LogSection {
        /// `error`, `warn`, `info`, `debug`, `trace`, for Attune's own lines; or a filter such as
        /// `info,deltalake=debug`, for all.
        pub level: String = "info".into(),
        /// `human` or `json`.
        pub format: String = "human".into(),
    }
}

section! {
    /// Where traces of statements go, and what metrics name.
    pub struct ObserveSection {
        /// Address of an OpenTelemetry collector that takes OTLP over gRPC, such as
        /// `http://127.0.0.1:4317`; without it, no traces are made.
        pub otlp_endpoint: Option<String> = None,
        /// The service's name in traces.
        pub service_name: String = "attune".into(),
        /// Metrics name tables with expectations, tell which of these hold and what was measured.
        /// Whoever reads metrics sees that, whatever rights they have.
        pub name_expectations: bool = false,
    }
}

section! {
    /// The record of who did what.
    pub struct AuditSection {
        /// What is recorded: `off`; `changes` (logins, changes of data, definitions and rights,
        /// refusals, reads under a policy); `all`: every read too.
        pub record: String = "all".into(),
        /// Record what the owner of a warehouse without users does, too.
        pub embedded: bool = false,
        /// Record reads of `system` and `information_schema`, too; those of the record itself
        /// always are.
        pub system: bool = false,
        /// A statement that cannot be recorded fails; otherwise a metric and the log tell.
        pub strict: bool = false,
        /// A read that is not under a policy is written after at most this; changes are written
        /// before they are made.
        pub delay: Duration = Duration::from_secs(1),
        /// So many entries wait to be written at most.
        pub queue_max: usize = 10_000,
        /// Entries older than this are removed, such as `"17520 h"` for two years; by default
        /// none.
        pub retention: Option<Duration> = None,
        /// File with the secret that signs the record, of at least 32 characters; by default the
        /// warehouse holds one, and whoever may write the warehouse could sign.
        pub signing_key_file: Option<PathBuf> = None,
    }
}

section! {
    /// A secret key for pseudonyms and encryption. The secret itself never stands in the file:
    /// give exactly one of `file` and `env`.
    pub struct KeySection {
        /// File that holds the secret.
        pub file: Option<PathBuf> = None,
        /// Environment variable that holds the secret.
        pub env: Option<String> = None,
        /// Short id that stands in every token made with this key, so that keys can be replaced;
        /// by default derived from the key.
        pub id: Option<String> = None,
        /// Files that hold the secrets before this one, the oldest first: what they sealed still
        /// opens.
        pub previous_files: Vec<PathBuf> = Vec::new(),
        /// The same in environment variables; give one of both.
        pub previous_envs: Vec<String> = Vec::new(),
        /// Their ids, in the same order, where they had some; by default derived from each.
        pub previous_ids: Vec<String> = Vec::new(),
        /// The number of the oldest generation that is given: one more for each secret that was
        /// taken away from the front.
        pub first_generation: usize = 1,
    }
}

section! {
    /// What keys made in SQL are kept under.
    pub struct KeyringSection {
        /// File with the master keys that keys of CREATE KEY are wrapped under, one a line of at
        /// least 32 characters: the first wraps, all open. Without one no key can be made.
        pub master_key_file: Option<PathBuf> = None,
        /// The same, such as in `ATTUNE_KEYRING_MASTER_KEY`; better in a file.
        pub master_key: Option<Hidden> = None,
    }
}

/// A lake: a store whose files are tables of the schema of the lake's name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LakeSection {
    /// Where the files are.
    pub store: StoreSection,
    /// How tables are found.
    pub discovery: DiscoverySection,
    /// The tables that the file lists.
    pub tables: Vec<TableSection>,
}

impl Section for LakeSection {
    fn fields() -> Vec<Field> {
        let mut fields = StoreSection::fields();
        fields.extend(DiscoverySection::fields());
        fields
    }

    fn set(&mut self, name: &str, setting: &Setting<'_>) -> Option<Result<(), String>> {
        self.store.set(name, setting).or_else(|| self.discovery.set(name, setting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_documented_in_a_sentence() {
        let sections = [
            LakeSection::fields(),
            TableSection::fields(),
            ServerSection::fields(),
            AuthSection::fields(),
            OidcSection::fields(),
            LimitsSection::fields(),
            LogSection::fields(),
            ObserveSection::fields(),
            AuditSection::fields(),
            KeySection::fields(),
            KeyringSection::fields(),
        ];
        for field in sections.iter().flatten() {
            assert!(field.about.trim().ends_with('.'), "{}: {}", field.name, field.about);
        }
    }

    #[test]
    fn a_lake_has_the_fields_of_a_store_and_its_own() {
        let mut lake = LakeSection::default();
        assert_eq!(lake.set("discover", &Setting::Text("yes")), Some(Ok(())));
        assert_eq!(lake.set("region", &Setting::Text("eu-west-3")), Some(Ok(())));
        assert!(lake.set("nonsense", &Setting::Text("x")).is_none());
        assert!(lake.discovery.discover);
        assert_eq!(lake.store.region.as_deref(), Some("eu-west-3"));
    }
}
