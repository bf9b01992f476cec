//! Opens the engine over the configured stores, and decides who the caller is.

use std::sync::Arc;

use catalog::Catalog;
use catalog::policy::Principal;

use crate::auth::hasher::Argon2Hasher;
use crate::auth::{Authentication, Authenticator};
use crate::config::{Config, Environment, Location, Machine};
use crate::error::{Error, Result};

/// Opens the catalog and the engine that `config` describes.
///
/// # Errors
/// When a store cannot be reached or a secret cannot be read.
pub async fn open(config: &Config, environment: &Environment) -> Result<sql::Engine> {
    let catalog = Catalog::open(config.catalog(environment)?).await?;
    let limits = config.engine_limits(Machine::here());
    let engine = sql::Engine::open(catalog, limits, Arc::new(Argon2Hasher::default()))?;
    Ok(engine.with_noise(Arc::new(OsNoise)))
}

/// Seeds from the operating system: each private answer has one of its own.
#[derive(Debug, Clone, Copy)]
pub struct OsNoise;

impl sql::NoiseSource for OsNoise {
    fn seed(&self) -> std::result::Result<[u8; 32], String> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
        Ok(seed)
    }
}

/// The documentation of this program's SQL functions, which needs no lake and no warehouse.
///
/// # Errors
/// When the engine cannot start.
pub async fn functions_documentation() -> Result<Vec<sql::FunctionDoc>> {
    // A local warehouse is made when it is first written to, so this folder never appears.
    let nowhere = std::env::temp_dir().join(format!("attune-{}", std::process::id()));
    let mut config = Config::default();
    config.warehouse.url = Location(nowhere.to_string_lossy().into_owned());
    Ok(open(&config, &Environment::default()).await?.functions_documentation())
}

/// The principal of a session inside this process.
///
/// A warehouse without users trusts whoever can open it. One that has users asks for the same name
/// and password as its server does: embedded is no side door. `password` is asked for only when it
/// is needed.
///
/// # Errors
/// When the warehouse has users and `user` is none of them or the password is wrong.
pub async fn embedded_principal(
    engine: &sql::Engine,
    user: Option<&str>,
    password: impl FnOnce(&str) -> Result<String>,
) -> Result<Principal> {
    let catalog = engine.catalog();
    let Some(name) = user else {
        let open_to_all = !catalog.has_users().await?;
        return if open_to_all { Ok(Principal::embedded()) } else { Err(Error::LoginRequired) };
    };
    if !catalog.has_users().await? {
        return Err(Error::usage(
            format!("this warehouse has no users, so there is no {name}"),
            format!("leave --user out, or make the user: attune user add {name} --role admin"),
        ));
    }
    let password = password(name)?;
    let authenticator = Authenticator::new(Authentication::Users, catalog).await?;
    let login = authenticator.login(name, password, None).await;
    if login.is_err()
        && let Err(error) = catalog.audit().flush().await
    {
        // This process ends with the refusal, which is told in any case.
        tracing::warn!(%error, "a failed login is not on record");
    }
    Ok(login?.principal)
}
