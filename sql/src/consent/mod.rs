//! Purposes and consent: who reads for what, and whose rows are there then.
//!
//! A consent policy governs a table. Where the session's catalog opens a governed table
//! ([`guard`]), the purpose of the reading must be one that a policy names and that who reads
//! holds. Then the rows of people who do not consent to it are absent: the operator ([`exec`])
//! drops them batch by batch by a set of exceptions that is held in memory and is known to be the
//! newest ([`store`], [`load`]). All policies of a table that name the purpose must agree. What is
//! made of the rows, a view's rows, a model, an export, is made of the rows that are there, and a
//! change reaches no others.

mod compared;
pub(crate) mod copies;
mod exec;
mod groups;
mod guard;
pub(crate) mod held;
mod lineage;
mod links;
mod listed;
mod load;
pub(crate) mod models;
mod other_ids;
mod policies;
mod purposes;
mod record;
mod store;
pub(crate) mod syntax;
pub(crate) mod tables;
pub(crate) mod withdrawals;

use std::sync::Arc;

use datafusion::execution::session_state::SessionState;

use catalog::{ConsentPolicy, CreateMode, Purpose};

pub(crate) use self::groups::tells_together;
pub(crate) use self::guard::{governed, may_replace, parts, personal};
pub(crate) use self::links::crosswalk_table;
pub(crate) use self::store::{ConsentStore, Opening, seed};
pub use self::syntax::ConsentStatement;
use self::syntax::PurposeAlteration;

use crate::error::Result;
use crate::session::bindings::Bindings;
use crate::session::run::{Done, Run};
use crate::session::{Action, StatementContext};
use crate::table::aliases;

/// A change of purposes or consent policies, checked when it was planned.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    CreatePurpose(Box<Purpose>, CreateMode),
    AlterPurpose { name: String, alteration: PurposeAlteration },
    DropPurpose { name: String, if_exists: bool },
    DefaultPurpose { user: String, purpose: Option<String> },
    CreatePolicy(Box<ConsentPolicy>, CreateMode),
    AlterPolicy { name: String, alteration: policies::Alteration },
    DropPolicy { name: String, if_exists: bool },
}

/// Plans a statement about purposes and consent.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    statement: &ConsentStatement,
) -> Result<(SessionState, Action)> {
    use ConsentStatement as S;
    let query = match statement {
        S::ShowPurposes => purposes::SHOWN.to_owned(),
        S::DescribePurpose { name } => purposes::described(context, name).await?,
        S::ShowPolicies { table } => policies::shown(context, table.as_deref()).await?,
        S::DescribePolicy { name } => policies::described(context, name).await?,
        S::Record(record) => return record::plan(context, record).await,
        change => {
            let change = Box::pin(planned(context, change)).await?;
            return Ok((context.state(&Bindings::default())?, Action::Consent(change)));
        }
    };
    let (state, plan) = context.plan_query(crate::parse::parse_query(&query)?).await?;
    Ok((state, Action::Query(plan)))
}

async fn planned(context: &Arc<StatementContext>, statement: &ConsentStatement) -> Result<Change> {
    use ConsentStatement as S;
    match statement {
        S::CreatePurpose { name, replace, if_not_exists, description, sells_or_shares } => {
            let mode = crate::table::mode(*replace, *if_not_exists)?;
            purposes::create(context, name, mode, description.clone(), *sells_or_shares)
        }
        S::AlterPurpose { name, alteration } => purposes::alter(context, name, alteration).await,
        S::DropPurpose { name, if_exists } => {
            context.rights().may_set_policy("drop purposes")?;
            Ok(Change::DropPurpose { name: name.clone(), if_exists: *if_exists })
        }
        S::DefaultPurpose { user, purpose } => {
            purposes::default_of(context, user, purpose.as_deref()).await
        }
        S::CreatePolicy(create) => policies::create(context, create).await,
        S::AlterPolicy { name, alteration } => policies::alter(context, name, alteration).await,
        S::DropPolicy { name, table, if_exists } => {
            policies::drop(context, name, table.as_deref(), *if_exists).await
        }
        S::Record(_)
        | S::ShowPurposes
        | S::DescribePurpose { .. }
        | S::ShowPolicies { .. }
        | S::DescribePolicy { .. } => {
            Err(crate::error::Error::Internal("this changes no policy".into()))
        }
    }
}

impl Change {
    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        let catalog = run.session.engine().catalog();
        // What was planned a while ago is done by who may do it now.
        let rights = run.session.rights().await?;
        match self {
            Self::DefaultPurpose { user, .. } => purposes::may_set_default(&rights, user)?,
            _ => rights.may_set_policy("change purposes and policies")?,
        }
        match self {
            Self::CreatePurpose(purpose, mode) => {
                let made = catalog.create_purpose(purpose.as_ref().clone(), *mode).await?;
                Ok(done(made, "CREATE PURPOSE", &purpose.name))
            }
            Self::AlterPurpose { name, alteration } => {
                catalog
                    .change_purpose(name, |purpose| match alteration {
                        PurposeAlteration::Description(text) => {
                            purpose.description.clone_from(text)
                        }
                        PurposeAlteration::SellsOrShares(sells) => purpose.sells_or_shares = *sells,
                    })
                    .await?;
                Ok(Done::new(0, format!("ALTER PURPOSE {name}")))
            }
            Self::DropPurpose { name, if_exists } => {
                if !catalog.drop_purpose(name).await? && !if_exists {
                    return Err(purposes::unknown(catalog, name).await);
                }
                Ok(Done::new(0, format!("DROP PURPOSE {name}")))
            }
            Self::DefaultPurpose { user, purpose } => {
                let set = |record: &mut catalog::UserRecord| {
                    record.default_purpose = purpose.clone();
                };
                catalog.change_user(user, set).await?;
                let shown = purpose.as_deref().unwrap_or("NONE");
                Ok(Done::new(0, format!("ALTER USER {user} SET DEFAULT PURPOSE {shown}")))
            }
            Self::CreatePolicy(policy, mode) => {
                let made = catalog.create_consent(policy.as_ref().clone(), *mode).await?;
                let mut done = done(made, "CREATE CONSENT POLICY", &policy.name);
                if made {
                    done.message.push_str(&aliases::told(catalog, &policy.table).await);
                }
                Ok(done)
            }
            Self::AlterPolicy { name, alteration } => {
                catalog
                    .change_consent(name, |policy| {
                        alteration.apply(policy);
                        Ok(())
                    })
                    .await?;
                Ok(Done::new(0, format!("ALTER CONSENT POLICY {name}")))
            }
            Self::DropPolicy { name, if_exists } => {
                if !catalog.drop_consent(name).await? && !if_exists {
                    return Err(policies::unknown(catalog, name).await);
                }
                Ok(Done::new(0, format!("DROP CONSENT POLICY {name}")))
            }
        }
    }
}

fn done(made: bool, verb: &str, name: &str) -> Done {
    match made {
        true => Done::new(0, format!("{verb} {name}")),
        false => Done::new(0, format!("{name} exists already, nothing was changed")),
    }
}
