//! Errors of the program: what its own part adds to the errors of `sql` and `catalog`.

use catalog::Class;

/// What can go wrong in the program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Called with arguments that do not fit together.
    #[error("{what}")]
    Usage {
        /// A sentence.
        what: String,
        /// What to do instead.
        hint: Option<String>,
    },
    /// The server cannot start.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        reason: String,
    },
    /// From the catalog.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// From the SQL engine.
    #[error(transparent)]
    Sql(#[from] sql::Error),
}

/// The program's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The gRPC status of an error's class.
pub fn grpc_code(class: Class) -> tonic::Code {
    match class {
        Class::Syntax | Class::Invalid => tonic::Code::InvalidArgument,
        Class::NotFound => tonic::Code::NotFound,
        Class::AlreadyExists => tonic::Code::AlreadyExists,
        Class::Denied => tonic::Code::PermissionDenied,
        Class::Unsupported => tonic::Code::Unimplemented,
        Class::Unavailable => tonic::Code::Unavailable,
        Class::Exhausted => tonic::Code::ResourceExhausted,
        Class::Cancelled => tonic::Code::Cancelled,
        Class::TimedOut => tonic::Code::DeadlineExceeded,
        Class::Conflict => tonic::Code::Aborted,
        Class::Corrupt => tonic::Code::DataLoss,
        Class::Internal => tonic::Code::Internal,
    }
}
