//! CREATE CONSENT POLICY and its kin.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::{Catalog, ConsentPolicy, ConsentSource, Kind, Object, ObjectName, Purposes};
use datafusion::logical_expr::LogicalPlan;
use udfs::consent::SubjectKind;

use super::Change;
use super::load::{Reading, is_time};
use super::purposes::{check_name, sees_all};
use super::syntax::{COLUMNS_MIN, CreatePolicy, WrittenAlteration};
use crate::dml::sent::quoted;
use crate::error::{Error, Result};
use crate::parse::parse_query;
use crate::pii::{self, Reader, Shown};
use crate::policy::retention;
use crate::rights::{Columns, Rights};
use crate::session::StatementContext;

/// What ALTER CONSENT POLICY changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Alteration {
    Purposes(BTreeSet<String>),
    Channels(BTreeSet<String>),
    DefaultAllow(bool),
}

impl Alteration {
    pub(super) fn apply(&self, policy: &mut ConsentPolicy) {
        match self {
            Self::Purposes(purposes) => policy.purposes = purposes.clone(),
            Self::Channels(channels) => policy.channels = channels.clone(),
            Self::DefaultAllow(allow) => policy.default_allow = *allow,
        }
    }
}

/// Plans CREATE CONSENT POLICY: all that it names is there, and the consents can be read as who
/// creates it, as which they will be.
pub(super) async fn create(
    context: &Arc<StatementContext>,
    written: &CreatePolicy,
) -> Result<Change> {
    let rights = context.rights();
    rights.may_set_policy("create policies")?;
    check_name(&written.name, "policy")?;
    let mode = crate::table::mode(written.replace, written.if_not_exists)?;
    let catalog = context.engine().catalog();
    let all = catalog.purposes().await?;
    let purposes = purposes(&all, &written.purposes)?;
    let table = governed(context, &written.table).await?;
    let kind = person(context, &table, &written.subject).await?;
    let consents = source(context, written).await?;
    let channels = channels(&written.channels, &consents)?;
    if written.default_allow {
        remembers(context, &consents.table).await?;
    }
    let owner = rights.name().to_owned();
    let reading = Reading::of(context.engine(), &owner, &consents).await?;
    if reading.kind() != kind {
        return Err(Error::invalid_hint(
            format!(
                "{}.{} holds {}, and the persons of {} are {}",
                table,
                written.subject,
                kind.name(),
                consents.table,
                reading.kind().name()
            ),
            "name a view of the consents with CAST",
        ));
    }
    let policy = ConsentPolicy {
        name: written.name.clone(),
        table,
        subject: written.subject.clone(),
        consents,
        purposes,
        channels,
        default_allow: written.default_allow,
        owner,
        created_ms: catalog.now_ms(),
        is_inherited: false,
        follows: None,
    };
    Ok(Change::CreatePolicy(Box::new(policy), mode))
}

fn purposes(all: &Purposes, written: &[String]) -> Result<BTreeSet<String>> {
    for name in written {
        if all.get(name).is_none() {
            let known: Vec<&str> = all.all().map(|purpose| purpose.name.as_str()).collect();
            return Err(Error::unknown("purpose", name, known));
        }
    }
    Ok(written.iter().cloned().collect())
}

/// The channels for which a policy is read one by one, which its consents tell apart.
fn channels(written: &[String], consents: &ConsentSource) -> Result<BTreeSet<String>> {
    for name in written {
        check_name(name, "channel")?;
    }
    if !written.is_empty() && consents.channel.is_none() {
        return Err(Error::invalid_hint(
            format!("the policy names no column of {} that tells the channel", consents.table),
            "write USING consents (subject, purpose, granted, valid_from, channel)",
        ));
    }
    Ok(written.iter().cloned().collect())
}

/// The table to govern. Who keeps policies need not be able to read it.
async fn governed(context: &Arc<StatementContext>, written: &[String]) -> Result<ObjectName> {
    let any = |_: &Rights, _: &ObjectName, object: &Object| {
        matches!(object.kind, Kind::Table | Kind::View)
    };
    match context.find(written, any).await? {
        Some((_, object)) if object.kind == Kind::View => Err(Error::unsupported(
            format!("{} is a view, which policies do not govern", written.join(".")),
            "create the policy on the tables that it reads: a view shows what they show",
        )),
        Some((name, _)) => Ok(name),
        None => Err(context.no_table(&written.join(".")).await),
    }
}

/// What a table's column of persons holds.
async fn person(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    column: &str,
) -> Result<SubjectKind> {
    let opened = pii::open(context.engine(), table, None, Reader::Engine).await?;
    let Some(Shown::Table(opened)) = opened else {
        return Err(context.no_table(&table.to_string()).await);
    };
    let schema = opened.schema();
    let Some((_, field)) = schema.column_with_name(column) else {
        let known = schema.fields().iter().map(|field| field.name().as_str());
        return Err(Error::unknown("column", column, known));
    };
    SubjectKind::of(field.data_type()).ok_or_else(|| {
        Error::invalid_hint(
            format!(
                "{table}.{column} is {}, and persons are text or whole numbers",
                field.data_type()
            ),
            "name another column",
        )
    })
}

/// The table or view of consents, with what each of its named columns is: of the columns behind the
/// third a time is `valid_from`, the next time `valid_to`, and a text the channel.
async fn source(context: &Arc<StatementContext>, written: &CreatePolicy) -> Result<ConsentSource> {
    let reads = |rights: &Rights, name: &ObjectName, object: &Object| {
        let is_table = matches!(object.kind, Kind::Table | Kind::View);
        is_table && rights.access(name, Some(object)).select != Columns::None
    };
    let Some((table, _)) = context.find(&written.consents, reads).await? else {
        return Err(context.no_table(&written.consents.join(".")).await);
    };
    // A column may be named twice, which its type will tell.
    let listed = written.columns.iter().enumerate();
    let listed: Vec<String> =
        listed.map(|(at, column)| format!("{} AS c{at}", quoted(column))).collect();
    let text = format!(
        "SELECT {} FROM {}.{}",
        listed.join(", "),
        quoted(&table.schema),
        quoted(&table.name)
    );
    let (_, plan) = Box::pin(context.plan_query(parse_query(&text)?)).await?;
    let [subject, purpose, granted, more @ ..] = written.columns.as_slice() else {
        return Err(Error::Internal("a consent policy was read without columns".into()));
    };
    let mut source = ConsentSource {
        table,
        subject: subject.clone(),
        purpose: purpose.clone(),
        granted: granted.clone(),
        valid_from: None,
        valid_to: None,
        channel: None,
    };
    for (column, is_time) in more.iter().zip(times(&plan)) {
        let (begins, ends) = (source.valid_from.is_some(), source.valid_to.is_some());
        let place = match (is_time, begins, ends, source.channel.is_some()) {
            (true, false, false, false) => &mut source.valid_from,
            (true, true, false, false) => &mut source.valid_to,
            (false, _, _, false) => &mut source.channel,
            _ => {
                return Err(Error::invalid_hint(
                    format!("column {column} of the consents is one too many"),
                    "behind subject, purpose, granted come valid_from, valid_to (times) and \
                     channel (text), in this order",
                ));
            }
        };
        *place = Some(column.clone());
    }
    Ok(source)
}

/// Checks that a table of consents keeps its rows: where silence is a consent, a withdrawal that is
/// removed would be one.
async fn remembers(context: &StatementContext, table: &ObjectName) -> Result<()> {
    match retention::hides(context, table).await? {
        false => Ok(()),
        true => Err(Error::invalid_hint(
            format!(
                "{table} is under a retention policy: with DEFAULT ALLOW a withdrawal that is \
                 removed would be a consent"
            ),
            "use DEFAULT DENY, or drop the retention policy",
        )),
    }
}

/// Of each column behind the third, whether it is a time.
fn times(plan: &LogicalPlan) -> Vec<bool> {
    let fields = plan.schema().fields().iter().skip(COLUMNS_MIN);
    fields.map(|field| is_time(field.data_type())).collect()
}

pub(super) async fn alter(
    context: &Arc<StatementContext>,
    name: &str,
    written: &WrittenAlteration,
) -> Result<Change> {
    context.rights().may_set_policy("change policies")?;
    let catalog = context.engine().catalog();
    let all = catalog.purposes().await?;
    let Some(policy) = all.policy(name) else { return Err(unknown(catalog, name).await) };
    let alteration = match written {
        WrittenAlteration::Purposes(written) => Alteration::Purposes(purposes(&all, written)?),
        WrittenAlteration::Channels(written) => {
            Alteration::Channels(channels(written, &policy.consents)?)
        }
        WrittenAlteration::DefaultAllow(allow) => {
            if *allow {
                remembers(context, &policy.consents.table).await?;
            }
            Alteration::DefaultAllow(*allow)
        }
    };
    Ok(Change::AlterPolicy { name: name.to_owned(), alteration })
}

pub(super) async fn drop(
    context: &Arc<StatementContext>,
    name: &str,
    table: Option<&[String]>,
    if_exists: bool,
) -> Result<Change> {
    context.rights().may_set_policy("drop policies")?;
    let catalog = context.engine().catalog();
    if let (Some(policy), Some(written)) = (catalog.purposes().await?.policy(name), table) {
        let same = match written {
            [table] => *table == policy.table.name,
            _ => context.target(written)? == policy.table,
        };
        if !same {
            return Err(Error::invalid_hint(
                format!("consent policy {name} is on {}", policy.table),
                "name that table, or leave ON out",
            ));
        }
    }
    Ok(Change::DropPolicy { name: name.to_owned(), if_exists })
}

/// The error for a policy that does not exist; for those who may see all of them.
pub(super) async fn unknown(catalog: &Catalog, name: &str) -> Error {
    let all = catalog.purposes().await.unwrap_or_default();
    let known: Vec<&str> = all.policies().map(|policy| policy.name.as_str()).collect();
    Error::unknown("consent policy", name, known)
}

/// The query behind SHOW CONSENT POLICIES.
pub(super) async fn shown(
    context: &Arc<StatementContext>,
    table: Option<&[String]>,
) -> Result<String> {
    let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let condition = match table {
        None => "true".to_owned(),
        Some(written) => {
            let sees = |rights: &Rights, name: &ObjectName, object: &Object| {
                sees_all(rights) || rights.access(name, Some(object)).is_any()
            };
            let Some((name, _)) = context.find(written, sees).await? else {
                return Err(context.no_table(&written.join(".")).await);
            };
            format!("schema = {} AND \"table\" = {}", text(&name.schema), text(&name.name))
        }
    };
    Ok(format!(
        "SELECT name, schema, \"table\", subject_column, purpose, \"default\", consents, channel \
         FROM system.consents WHERE {condition} ORDER BY name, purpose, channel"
    ))
}

/// The query behind DESCRIBE CONSENT POLICY.
pub(super) async fn described(context: &Arc<StatementContext>, name: &str) -> Result<String> {
    let rows = super::tables::policies(context).await?;
    if !rows.iter().any(|policy| policy.name == name) {
        let known: Vec<&str> = rows.iter().map(|policy| policy.name.as_str()).collect();
        return Err(Error::unknown("consent policy", name, known));
    }
    let text = name.replace('\'', "''");
    Ok(format!("SELECT * FROM system.consents WHERE name = '{text}' ORDER BY purpose, channel"))
}
