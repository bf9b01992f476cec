//! Who may do what: principals, roles and grants. `src::auth` makes principals, `sql` enforces.

pub mod carried;
pub mod grant;
pub mod principal;
pub mod rules;

pub use carried::{Carried, free_name};
pub use grant::{Grant, Grantee, Privilege, Securable};
pub use principal::{Principal, Role, is_built_in};
pub use rules::{Attached, Policy, PolicyMoment, Rule, RuleSet, TableRules};
