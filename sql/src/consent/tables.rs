//! `system.purposes` and `system.consents`: what of them somebody may see.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use catalog::policy::Role;
use catalog::{ConsentPolicy, Purpose};

use super::purposes::sees_all;
use super::store::Held;
use crate::error::Result;
use crate::session::StatementContext;
use crate::system::{batch, optional_texts, texts};

fn moments(times: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(times.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
}

/// Purposes: all of them for those who grant them and for administrators, one's own for others.
pub(crate) async fn purposes(context: &StatementContext) -> Result<RecordBatch> {
    let rights = context.rights();
    let held = rights.purposes();
    let all = context.engine().catalog().purposes().await?;
    let shown = all.all().filter(|purpose| sees_all(rights) || held.holds(&purpose.name));
    let shown: Vec<_> = shown.collect();
    let flags = |of: &dyn Fn(&Purpose) -> bool| {
        let flags = shown.iter().map(|purpose| Some(of(purpose)));
        Arc::new(flags.collect::<BooleanArray>()) as ArrayRef
    };
    batch(vec![
        ("name", texts(shown.iter().map(|purpose| purpose.name.as_str()))),
        ("description", optional_texts(shown.iter().map(|purpose| purpose.description.clone()))),
        ("held", flags(&|purpose| held.holds(&purpose.name))),
        ("is_default", flags(&|purpose| held.default_purpose() == Some(purpose.name.as_str()))),
        ("owner", texts(shown.iter().map(|purpose| purpose.owner.as_str()))),
        ("created", moments(shown.iter().map(|purpose| Some(purpose.created_ms)))),
        ("sells_or_shares", flags(&|purpose| purpose.sells_or_shares)),
    ])
}

/// The consent policies of the tables that somebody may read; all of them for who keeps policies.
pub(super) async fn policies(context: &StatementContext) -> Result<Vec<Arc<ConsentPolicy>>> {
    let rights = context.rights();
    let mut found = Vec::new();
    for policy in rights.purposes().policies() {
        if sees_all(rights) || context.access(&policy.table).await.is_any() {
            found.push(Arc::clone(policy));
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// A policy for one of its purposes, and for one of its channels or all of them.
struct Row {
    policy: Arc<ConsentPolicy>,
    purpose: String,
    channel: Option<String>,
    held: Option<Arc<Held>>,
}

/// Consent policies, a row for each purpose, and one for each channel that is listed besides. Where
/// the consents are, how many exceptions there are and at which version is for those alone who keep
/// policies: a count tells of people.
pub(crate) async fn consents(context: &StatementContext) -> Result<RecordBatch> {
    let keeps = context.rights().has(Role::PolicyAdmin);
    let store = context.engine().consents();
    let mut rows = Vec::new();
    for policy in policies(context).await? {
        for purpose in &policy.purposes {
            for channel in policy.channels.iter().map(Some).chain([None]) {
                let (purpose, channel) = (purpose.clone(), channel.cloned());
                let held = store.held(&policy, &purpose, channel.as_deref()).filter(|_| keeps);
                rows.push(Row { policy: Arc::clone(&policy), purpose, channel, held });
            }
        }
    }
    let of = |read: fn(&ConsentPolicy) -> &str| texts(rows.iter().map(|row| read(&row.policy)));
    let kept = |read: fn(&ConsentPolicy) -> String| {
        optional_texts(rows.iter().map(|row| keeps.then(|| read(&row.policy))))
    };
    let held = || rows.iter().map(|row| row.held.as_ref());
    let exceptions = held().map(|held| held.map(|held| held.set().len()));
    let exceptions = exceptions.map(|count| count.and_then(|count| i64::try_from(count).ok()));
    batch(vec![
        ("name", of(|policy| &policy.name)),
        ("schema", of(|policy| &policy.table.schema)),
        ("table", of(|policy| &policy.table.name)),
        ("subject_column", of(|policy| &policy.subject)),
        ("purpose", texts(rows.iter().map(|row| row.purpose.as_str()))),
        ("channel", optional_texts(rows.iter().map(|row| row.channel.clone()))),
        ("default", of(|policy| if policy.default_allow { "allow" } else { "deny" })),
        ("consents", kept(|policy| policy.consents.to_string())),
        ("owner", kept(|policy| policy.owner.clone())),
        ("created", moments(rows.iter().map(|row| Some(row.policy.created_ms)))),
        ("version", optional_texts(held().map(|held| held.map(|held| held.version())))),
        ("exceptions", Arc::new(exceptions.collect::<Int64Array>())),
        ("checked", moments(held().map(|held| held.map(|held| held.checked_ms())))),
    ])
}
