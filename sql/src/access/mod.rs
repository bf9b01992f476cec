//! Users, roles and grants: CREATE USER, CREATE ROLE, GRANT, REVOKE, SHOW GRANTS, SET ROLE.
//!
//! Everything that changes is checked and done when the statement runs, against the rights of that
//! moment. The right to manage users and roles is `admin`'s, the right to grant on an object its
//! owner's and `admin`'s; see [`crate::rights`].

mod grant_syntax;
mod grants;
pub(crate) mod syntax;
mod users;

use std::sync::Arc;

use datafusion::execution::session_state::SessionState;

use self::syntax::AccessStatement;
pub(crate) use self::users::check_account;
use crate::error::{Error, Result};
use crate::session::bindings::Bindings;
use crate::session::run::{Done, Run};
use crate::session::{Action, StatementContext};

/// A change of users, roles or grants.
#[derive(Debug, Clone)]
pub(crate) struct Change(Box<AccessStatement>);

/// Plans a statement about users, roles and grants.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    statement: &AccessStatement,
) -> Result<(SessionState, Action)> {
    match statement {
        AccessStatement::ShowGrants(shown) => {
            let query = grants::shown(context, shown).await?;
            let (state, plan) = context.plan_query(crate::parse::parse_query(&query)?).await?;
            Ok((state, Action::Query(plan)))
        }
        AccessStatement::SetRole(role) => {
            let role = role.clone().unwrap_or_default();
            context.rights().check_role(&role)?;
            let state = context.state(&Bindings::default())?;
            Ok((state, Action::Set("role".into(), role)))
        }
        change => {
            let state = context.state(&Bindings::default())?;
            Ok((state, Action::Access(Change(Box::new(change.clone())))))
        }
    }
}

impl Change {
    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        let context = &StatementContext::load(&run.session).await?;
        match self.0.as_ref() {
            AccessStatement::CreateUser { name, replace, if_not_exists, password, roles } => {
                let new = users::NewUser { name, password, roles: roles.as_deref() };
                users::create(context, new, *replace, *if_not_exists).await
            }
            AccessStatement::SetPassword { name, password } => {
                users::set_password(context, name, password).await
            }
            AccessStatement::DropUser { names, if_exists } => {
                users::drop_users(context, names, *if_exists).await
            }
            AccessStatement::Reassign { from, to } => users::reassign(context, from, to).await,
            AccessStatement::CreateRole { name, if_not_exists } => {
                users::create_role(context, name, *if_not_exists).await
            }
            AccessStatement::DropRole { names, if_exists } => {
                users::drop_roles(context, names, *if_exists).await
            }
            AccessStatement::Roles { roles, grantees, revoke } => {
                users::grant_roles(context, roles, grantees, *revoke).await
            }
            AccessStatement::Privileges { privileges, on, grantees, revoke } => {
                grants::change(context, privileges, on, grantees, *revoke).await
            }
            AccessStatement::ShowGrants(_) | AccessStatement::SetRole(_) => {
                Err(Error::Internal("this statement changes no rights".into()))
            }
        }
    }
}
