//! `attune user`: makes the first users of a warehouse. Once there are users, an administrator has
//! to log in to make more, as everywhere.

use std::collections::BTreeSet;

use catalog::UserRecord;
use catalog::policy::Role;

use super::Context;
use super::arguments::{UserAddArguments, UserArguments, UserCommand};
use super::password;
use crate::auth::passwords;
use crate::config::Config;
use crate::engine;
use crate::error::{Error, Result};

/// Runs `attune user …`.
pub(super) async fn run(arguments: &UserArguments, context: &Context) -> Result<()> {
    match &arguments.command {
        UserCommand::Add(arguments) => add(arguments, context).await,
    }
}

async fn add(arguments: &UserAddArguments, context: &Context) -> Result<()> {
    let Context { environment, screen } = context;
    let roles = roles(&arguments.role)?;
    check_name(&arguments.name)?;
    let config = Config::load(&arguments.store.overrides(), environment)?;
    let engine = engine::open(&config, environment).await?;
    let catalog = engine.catalog();
    if !catalog.has_users().await? {
        if !roles.contains(&Role::Admin) {
            return Err(Error::usage(
                "the first user of a warehouse must be an administrator, or nobody could make more",
                format!("attune user add {} --role admin", arguments.name),
            ));
        }
    } else {
        authorize(&engine, arguments.administrator.as_deref(), context).await?;
    }
    let password = password::new(environment, screen, &arguments.name)?;
    let hash = passwords::hash_password(&password)?;
    let record = UserRecord::new(&arguments.name, hash, roles);
    let shown = record.roles.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    catalog.put_user(record, arguments.replace).await?;
    screen.say(&format!("user {} ({shown}) is in {}", arguments.name, config.warehouse.url.0));
    Ok(())
}

/// The administrator's password is asked for on the terminal, because `ATTUNE_PASSWORD` holds the
/// new user's.
async fn authorize(
    engine: &sql::Engine,
    administrator: Option<&str>,
    context: &Context,
) -> Result<()> {
    let Some(name) = administrator else {
        return Err(Error::usage(
            "this warehouse has users: only an administrator makes more",
            "add --as NAME; the administrator's password is taken from ATTUNE_ADMIN_PASSWORD or \
             asked for",
        ));
    };
    let ask = |name: &str| match context.environment.get("ATTUNE_ADMIN_PASSWORD") {
        Some(password) => Ok(password.to_owned()),
        None => password::existing(&Default::default(), &context.screen, name),
    };
    let principal = engine::embedded_principal(engine, Some(name), ask).await?;
    if principal.has(Role::Admin) {
        return Ok(());
    }
    Err(Error::usage(format!("{name} is no administrator"), "ask one who is"))
}

fn roles(names: &[String]) -> Result<BTreeSet<Role>> {
    let role = |name: &String| {
        name.parse::<Role>()
            .map_err(|error| Error::Usage { what: error.to_string(), hint: error.hint() })
    };
    names.iter().map(role).collect()
}

/// A name that needs no quotes and fits into a header and a log line.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@');
    if !name.is_empty() && name.len() <= 128 && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::usage(
        format!("{name:?} cannot be a user's name"),
        "use at most 128 letters, digits and _ - . @",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_role_is_corrected() {
        let roles = |name: &str| roles(&[name.to_owned()]);
        assert!(roles("admin").unwrap().contains(&Role::Admin));
        let error = roles("analist").unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("did you mean analyst?"));
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn names_that_break_headers_are_refused() {
        assert!(check_name("ann.lee@example.org").is_ok());
        for wrong in ["", "a:b", "a b", "a\nb"] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
