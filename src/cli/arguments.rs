//! The arguments of every subcommand. The names are part of the interface: scripts hold them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::format::Format;
use crate::config::{Listen, Overrides};

const EXAMPLES: &str = "\
Examples:
  attune demo                                        a shop, a model, a server: the tour
  attune sql --lake ./data -c 'SELECT * FROM orders LIMIT 5'
  attune shell --lake s3://bucket/shop
  attune serve --config attune.toml
  attune shell --connect grpc://127.0.0.1:50051 --user ann";

/// The SQL personalization engine.
#[derive(Debug, Parser)]
#[command(name = "attune", version, about, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// What to do; without it, the shell.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The shell's arguments, when no subcommand is named.
    #[command(flatten)]
    pub shell: ShellArguments,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a small shop, run the case study on it, then serve it.
    Demo(DemoArguments),
    /// Serve Flight SQL, with health and metrics over HTTP.
    Serve(ServeArguments),
    /// Run SQL and write the result.
    Sql(SqlArguments),
    /// Type SQL, with history, completion and colours.
    Shell(ShellArguments),
    /// Read the configuration and try every store, without starting anything.
    Check(CheckArguments),
    /// Show the documentation of a SQL function.
    Docs(DocsArguments),
    /// Manage the users of a warehouse.
    User(UserArguments),
    /// Verify the record of who did what, export it, report from it.
    Audit(AuditArguments),
}

/// Where data is and where Attune writes.
///
/// The variables that stand in for these flags are read with the configuration: a flag that
/// contradicts `--connect` is a slip, a variable that does is not.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArguments {
    /// Configuration file [env: ATTUNE_CONFIG] [default: attune.toml, when there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder or s3:// URL of the lake; every folder below it is a table [env: ATTUNE_LAKE]
    #[arg(long, value_name = "URL")]
    pub lake: Option<String>,
    /// Folder or s3:// URL where Attune writes [env: ATTUNE_WAREHOUSE] [default:
    /// ./attune-warehouse]
    #[arg(long, value_name = "URL")]
    pub warehouse: Option<String>,
}

impl StoreArguments {
    /// The flags as the configuration takes them.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            lake: self.lake.clone(),
            warehouse: self.warehouse.clone(),
        }
    }

    /// Whether a flag names what this process should open itself.
    pub fn is_given(&self) -> bool {
        self.config.is_some() || self.lake.is_some() || self.warehouse.is_some()
    }
}

/// Whom to ask and as whom.
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectArguments {
    /// Ask a server: grpc://HOST:PORT or grpc+tls://HOST:PORT [env: ATTUNE_CONNECT]
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["lake", "warehouse", "config"])]
    pub connect: Option<String>,
    /// User; the password is taken from ATTUNE_PASSWORD or asked for
    #[arg(long, value_name = "NAME", env = "ATTUNE_USER")]
    pub user: Option<String>,
    /// PEM file of the certificates to trust with grpc+tls:// [default: the system's]
    #[arg(long, value_name = "FILE", env = "ATTUNE_CA")]
    pub ca: Option<PathBuf>,
    /// PEM file with your own certificate, for a server that asks for one
    #[arg(long, value_name = "FILE", env = "ATTUNE_CERTIFICATE", requires = "certificate_key")]
    pub certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(long, value_name = "FILE", env = "ATTUNE_CERTIFICATE_KEY", requires = "certificate")]
    pub certificate_key: Option<PathBuf>,
}

/// How results are written.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArguments {
    /// Format of results [default: by the name of -o, else table]
    #[arg(long, value_enum, value_name = "FORMAT", env = "ATTUNE_FORMAT")]
    pub format: Option<Format>,
    /// Write the result to a file, which appears only when it is whole
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Rows a table on a terminal shows; 0 for all
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub rows: usize,
    /// Say nothing but errors on standard error
    #[arg(short, long)]
    pub quiet: bool,
}

/// `attune sql`.
#[derive(Debug, Args)]
pub struct SqlArguments {
    /// Run this SQL; several statements are separated by semicolons
    #[arg(short, long, value_name = "SQL", conflicts_with_all = ["file", "input"])]
    pub command: Option<String>,
    /// Run the SQL in this file
    #[arg(short, long, value_name = "FILE", conflicts_with = "input")]
    pub file: Option<PathBuf>,
    /// `-` runs the SQL on standard input
    #[arg(value_name = "-", value_parser = ["-"])]
    pub input: Option<String>,
    /// Where the data is.
    #[command(flatten)]
    pub store: StoreArguments,
    /// Whom to ask.
    #[command(flatten)]
    pub connect: ConnectArguments,
    /// How to write.
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `attune shell`.
#[derive(Debug, Default, Args)]
pub struct ShellArguments {
    /// Where the data is.
    #[command(flatten)]
    pub store: StoreArguments,
    /// Whom to ask.
    #[command(flatten)]
    pub connect: ConnectArguments,
    /// How to write.
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `attune serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Where the data is.
    #[command(flatten)]
    pub store: StoreArguments,
    /// Where the server listens.
    #[command(flatten)]
    pub listen: ListenArguments,
}

/// Where the server listens.
#[derive(Debug, Clone, Default, Args)]
pub struct ListenArguments {
    /// Address of Flight SQL [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR", env = "ATTUNE_FLIGHT")]
    pub flight: Option<SocketAddr>,
    /// Address of health and metrics over HTTP, or off [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR|off", env = "ATTUNE_HTTP")]
    pub http: Option<Listen>,
    /// Address of PostgreSQL's protocol, such as 127.0.0.1:5432 [default: off]
    #[arg(long, value_name = "ADDR", env = "ATTUNE_PG")]
    pub pg: Option<SocketAddr>,
    /// Listen beyond this machine even without TLS or users
    #[arg(long)]
    pub insecure: bool,
}

/// `attune check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Where the data is.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// `attune docs`.
#[derive(Debug, Args)]
pub struct DocsArguments {
    /// Name of the function; without it, all are listed
    #[arg(value_name = "FUNCTION")]
    pub function: Option<String>,
}

/// `attune user`.
#[derive(Debug, Args)]
pub struct UserArguments {
    /// What to do with users.
    #[command(subcommand)]
    pub command: UserCommand,
}

/// A subcommand of `attune user`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make a user; the password is taken from ATTUNE_PASSWORD, a prompt, or standard input
    Add(UserAddArguments),
}

/// `attune user add`.
#[derive(Debug, Args)]
pub struct UserAddArguments {
    /// The user's name
    pub name: String,
    /// What the user may do: analyst, engineer, policy_admin, admin, or a role made with CREATE
    /// ROLE; may be given several times
    #[arg(long, value_name = "ROLE", default_value = "analyst")]
    pub role: Vec<String>,
    /// Change the password and roles of a user who exists
    #[arg(long)]
    pub replace: bool,
    /// An administrator, when the warehouse has users already; the password is asked for
    #[arg(long = "as", value_name = "NAME")]
    pub administrator: Option<String>,
    /// Where the data is.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// `attune audit`.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// What to do with the record.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// A subcommand of `attune audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Find every edit, removal and truncation of the record; exit code 1 when there is any
    Verify(AuditVerifyArguments),
    /// Write the record as one JSON object a line
    Export(AuditExportArguments),
    /// Write what is processed, by whom and for what: the basis of a data protection impact
    /// assessment
    Report(AuditReportArguments),
}

/// `attune audit verify`.
#[derive(Debug, Args)]
pub struct AuditVerifyArguments {
    /// Believe this public key and no other; may be given several times [default: those that the
    /// warehouse names]
    #[arg(long, value_name = "HEX")]
    pub public_key: Vec<String>,
    /// An entry that must be there, as an earlier verification showed it; may be given several
    /// times
    #[arg(long, value_name = "SEQUENCE:HASH")]
    pub anchor: Vec<String>,
    /// Where the record is.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// `attune audit export`.
#[derive(Debug, Args)]
pub struct AuditExportArguments {
    /// Write to a file, which appears only when it is whole
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where the record is.
    #[command(flatten)]
    pub store: StoreArguments,
    /// Whom to ask.
    #[command(flatten)]
    pub connect: ConnectArguments,
}

/// `attune audit report`.
#[derive(Debug, Args)]
pub struct AuditReportArguments {
    /// Format of the report
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = ReportFormat::Markdown)]
    pub format: ReportFormat,
    /// Where the record is.
    #[command(flatten)]
    pub store: StoreArguments,
    /// Whom to ask.
    #[command(flatten)]
    pub connect: ConnectArguments,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Markdown, for people.
    Markdown,
}

/// `attune demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Folder of the demo; what is in its `lake` and `warehouse` is written anew
    #[arg(long, value_name = "DIR", default_value = "attune-demo")]
    pub dir: PathBuf,
    /// Size of the shop: 1 is about 2,000 customers and 60,000 events
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub scale: u32,
    /// Stop after the recipe instead of serving
    #[arg(long)]
    pub exit: bool,
    /// Where the server listens.
    #[command(flatten)]
    pub listen: ListenArguments,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["attune"], arguments].concat())
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_flags_of_the_design_are_taken() {
        for line in [
            "demo --dir d --scale 2 --exit",
            "serve --config a.toml --lake l --warehouse w --flight 127.0.0.1:1 --http off",
            "serve --http 127.0.0.1:2",
            "sql -c x --format ndjson -o f --lake l --warehouse w",
            "sql -f x --connect grpc://h:1 --user ann",
            "sql -",
            "shell --connect grpc+tls://h:1 --user ann --ca ca.pem",
            "check --config a.toml",
            "docs levenshtein",
            "user add ann --role admin --role engineer",
            "audit verify --warehouse w --public-key ab --anchor 1:cd",
            "audit export -o record.ndjson --warehouse w --user dpo",
            "audit report --format markdown --connect grpc://h:1",
        ] {
            let words: Vec<_> = line.split(' ').collect();
            assert!(parse(&words).is_ok(), "{line}: {:?}", parse(&words).err());
        }
    }

    #[test]
    fn contradictions_are_refused_with_code_2() {
        for line in ["sql -c x -f y", "sql -c x --connect grpc://h:1 --lake l", "demo --scale 0"] {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(parse(&words).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
