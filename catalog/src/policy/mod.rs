//! Who may do what: principals and roles. `src::auth` makes principals, `sql` enforces.

pub mod principal;

pub use principal::{Principal, Role};
