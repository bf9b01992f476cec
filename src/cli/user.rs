//! `attune user`: makes users of a warehouse, as CREATE USER does. Once there are users, an
//! administrator has to log in to make more, as everywhere.

use catalog::Accounts;
use catalog::policy::{Principal, Role};

use super::Context;
use super::arguments::{UserAddArguments, UserArguments, UserCommand};
use super::password;
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
    check_name(&arguments.name)?;
    let config = Config::load(&arguments.store.overrides(), environment)?;
    let engine = engine::open(&config, environment).await?;
    let catalog = engine.catalog();
    check_roles(&catalog.accounts().await?, &arguments.role)?;
    let principal = if catalog.has_users().await? {
        authorize(&engine, arguments.administrator.as_deref(), context).await?
    } else if arguments.role.iter().any(|role| role == Role::Admin.name()) {
        Principal::embedded()
    } else {
        return Err(Error::usage(
            "the first user of a warehouse must be an administrator, or nobody could make more",
            format!("attune user add {} --role admin", arguments.name),
        ));
    };
    let password = password::new(environment, screen, &arguments.name)?;
    let statement = statement(arguments, &password);
    engine.session(principal).query(&statement).await?;
    let shown = arguments.role.join(", ");
    screen.say(&format!("user {} ({shown}) is in {}", arguments.name, config.warehouse.url.0));
    Ok(())
}

/// The CREATE USER that does the work. The query log holds no literals, so no password either.
fn statement(arguments: &UserAddArguments, password: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let roles: Vec<String> = arguments.role.iter().map(|role| quoted(role)).collect();
    format!(
        "CREATE {}USER {} PASSWORD '{}' ROLE {}",
        if arguments.replace { "OR REPLACE " } else { "" },
        quoted(&arguments.name),
        password.replace('\'', "''"),
        roles.join(", ")
    )
}

/// The administrator's password is asked for on the terminal, because `ATTUNE_PASSWORD` holds the
/// new user's.
async fn authorize(
    engine: &sql::Engine,
    administrator: Option<&str>,
    context: &Context,
) -> Result<Principal> {
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
        return Ok(principal);
    }
    Err(Error::usage(format!("{name} is no administrator"), "ask one who is"))
}

fn check_roles(accounts: &Accounts, names: &[String]) -> Result<()> {
    for name in names {
        if !accounts.has_role(name) {
            let known = Role::ALL.map(Role::name).into_iter();
            let known = known.chain(accounts.roles().map(|role| role.name.as_str()));
            let error = catalog::Error::not_found("role", name, known.collect::<Vec<_>>());
            return Err(Error::Usage { what: error.to_string(), hint: error.hint() });
        }
    }
    Ok(())
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
    fn the_statement_quotes_what_the_command_line_brought() {
        let arguments = UserAddArguments {
            name: "ann.lee".into(),
            role: vec!["analyst".into(), "a\"b".into()],
            replace: true,
            administrator: None,
            store: Default::default(),
        };
        assert_eq!(
            statement(&arguments, "it's long"),
            "CREATE OR REPLACE USER \"ann.lee\" PASSWORD 'it''s long' ROLE \"analyst\", \"a\"\"b\""
        );
    }

    #[test]
    fn names_that_break_headers_are_refused() {
        assert!(check_name("ann.lee@example.org").is_ok());
        for wrong in ["", "a:b", "a b", "a\nb"] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
