//! What a statement means: dialect, policies, plans, operators.
//!
//! Architecture invariant: the only crate that turns text into plans; every plan is made over the
//! principal's own catalog and passes the allow-list. No storage paths, no sockets.

mod access;
mod admission;
mod allow;
mod among;
mod anonymize;
mod audit;
mod bounded;
mod brief;
mod cases;
mod clause;
mod clean;
mod concatenation;
mod consent;
pub mod dialect;
mod dml;
mod effort;
pub mod engine;
pub mod error;
mod expectation;
pub mod functions;
mod growth;
mod intervals;
mod join;
mod key;
mod kill;
mod limits;
mod made;
mod memory;
mod model;
mod numbers;
mod operators;
mod over_query;
pub mod parse;
mod patience;
mod patterns;
pub mod pg;
mod pii;
mod planner;
mod policy;
mod private;
mod progress;
mod pushed_filters;
pub mod queries;
mod query_text;
mod readings;
mod restart;
mod rewrites;
mod rights;
mod same_names;
pub mod session;
mod similar;
mod size;
mod stream;
mod subject;
mod subqueries;
mod system;
mod table;
mod text_size;
mod tokens;
mod unread;
mod using;
mod value_rows;
mod values;
mod words;

pub use admission::Admission;
pub use dml::ingest::{IfMissing, IfPresent, Ingest};
pub use engine::{CATALOG, Engine, Limits, MAIN, NoiseSource, PasswordHasher, Usage};
pub use error::{Class, Error, Result};
pub use expectation::{CheckLog, CheckObserver};
pub use functions::FunctionDoc;
pub use key::UsedKey;
pub use model::schedule::{Retrained, retrain_due};
pub use policy::{Retained, retain_due};
pub use queries::{QueryLog, QueryRecord, State};
pub use query_text::without_literals;
pub use session::{
    Answer, Compression, OpenSessions, Origin, Prepared, Progress, SETTINGS, Session,
    SessionOptions, SessionRecord, SettingKind, Split, Submitted, TableFilter, TableInfo,
    setting_kind,
};
pub use subject::resume_erasures;
