//! `docs/config.md`, written from the declarations of the sections. A test fails when the file is
//! stale; `ATTUNE_UPDATE_DOCS=1 cargo test config` writes it anew.

use std::fmt::Write;

use super::environment::FLAGS;
use super::sections::{
    AuditSection, AuthSection, Field, KeySection, KeyringSection, LakeSection, LimitsSection,
    LogSection, ObserveSection, OidcSection, Section, ServerSection, StoreSection, TableSection,
};
use super::{DEFAULT_WAREHOUSE, FromSetting};

const HEAD: &str = "\
# Configuration

<!-- Written from src/config/sections.rs: ATTUNE_UPDATE_DOCS=1 cargo test config -->

Defaults, then a TOML file, then environment variables, then flags; each overrides the one before,
field by field. The file is `--config FILE`, else `attune.toml` in the working directory, when there
is one. `attune check` reads it, tries every store, and points to line and column of what is wrong.
Unknown keys are errors. Relative paths in the file are relative to the file. Sizes are written
`\"512 MiB\"`, times `\"30 s\"`.

```toml
[warehouse]                       # where Attune writes
url = \"s3://acme-attune/warehouse\"

[lake]                            # the lake called \"lake\": its tables are lake.NAME, or just NAME
url = \"s3://acme-lake/shop\"
discover = true

[lake.crm]                        # another lake, schema crm
url = \"s3://partner/export\"
endpoint = \"https://storage.example.org\"
access_key_id_file = \"/run/secrets/crm_id\"
secret_access_key_file = \"/run/secrets/crm_key\"

[[lake.crm.tables]]
name = \"customers\"
location = \"customers\"
format = \"csv\"
options = { delimiter = \";\" }

[server]
flight = \"0.0.0.0:50051\"
tls_certificate_file = \"server.pem\"
tls_key_file = \"server.key\"

[keys.email]
file = \"/run/secrets/email_key\"
```
";

/// The documentation of the configuration, as Markdown.
pub fn document() -> String {
    let mut warehouse = StoreSection::fields();
    if let Some(url) = warehouse.first_mut() {
        url.default = DEFAULT_WAREHOUSE.to_owned().shown();
    }
    let sections = [
        (
            "[warehouse]",
            "Where Attune writes: definitions, tables, models.",
            "WAREHOUSE",
            warehouse,
        ),
        (
            "[lake], [lake.NAME]",
            "Where data is read. Each lake is a schema; `[lake]` is short for `[lake.lake]`. \
             Variables of a named lake are `ATTUNE_LAKE_NAME_…`.",
            "LAKE",
            LakeSection::fields(),
        ),
        (
            "[[lake.tables]], [[lake.NAME.tables]]",
            "Tables with a name, format or options of their own.",
            "",
            TableSection::fields(),
        ),
        ("[server]", "Where the server listens.", "SERVER", ServerSection::fields()),
        ("[auth]", "Logins, sessions and what is kept for clients.", "AUTH", AuthSection::fields()),
        (
            "[auth.oidc]",
            "An identity provider (OpenID Connect) whose tokens are accepted as bearer tokens. Give \
             exactly one of `jwks_file` and `jwks_url`.",
            "AUTH_OIDC",
            OidcSection::fields(),
        ),
        ("[limits]", "What one process and one query may use.", "LIMITS", LimitsSection::fields()),
        ("[log]", "What the server writes to standard error.", "LOG", LogSection::fields()),
        (
            "[observe]",
            "Where traces of statements go, and what metrics name; docs/operations.md has the metrics.",
            "OBSERVE",
            ObserveSection::fields(),
        ),
        (
            "[audit]",
            "The record of who did what; docs/security.md says what it promises.",
            "AUDIT",
            AuditSection::fields(),
        ),
        (
            "[keys.NAME]",
            "A key for `pseudonymize`, `encrypt` and `fpe_encrypt`, used in SQL by its name. The \
             secret never stands in this file: give exactly one of `file` and `env`.",
            "",
            KeySection::fields(),
        ),
        (
            "[keyring]",
            "What keys made in SQL (`CREATE KEY`) are kept under; docs/privacy.md says how.",
            "KEYRING",
            KeyringSection::fields(),
        ),
    ];
    let mut text = HEAD.to_owned();
    for (title, about, variable, fields) in sections {
        section(&mut text, title, about, variable, &fields);
    }
    text.push_str("\n## Variables that mirror a flag\n\n| variable | meaning |\n|---|---|\n");
    for (name, about) in FLAGS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{name}` | {about} |");
    }
    text
}

fn section(text: &mut String, title: &str, about: &str, variable: &str, fields: &[Field]) {
    let _ = write!(text, "\n## {title}\n\n{about}\n\n");
    let _ = writeln!(text, "| key | value | default | meaning |\n|---|---|---|---|");
    for field in fields {
        let default = match field.default.as_str() {
            "" => "–".to_owned(),
            default => format!("`{default}`"),
        };
        let about = field.about.trim();
        let _ = writeln!(text, "| `{}` | {} | {default} | {about} |", field.name, field.expects);
    }
    if !variable.is_empty() {
        let example = fields.first().map_or("", |field| field.name).to_uppercase();
        let _ = writeln!(text, "\nEnvironment: `ATTUNE_{variable}_{example}` and so on.");
    }
}
