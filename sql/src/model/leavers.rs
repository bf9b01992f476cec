//! Who has left a version of a model since it was trained: people who withdrew, are restricted, or
//! were erased. What it has learned of them is nothing to go on from, and no reason to keep it.
//!
//! Where somebody may leave, as consents chose the rows or they have ids of a subject, RETRAIN goes
//! on only from a version all of whose users, or records, are in the rows still. So whoever is in a
//! chain of versions is in the last one, and is found there on leaving. A fold-in goes on whoever
//! has left; its version says so, and the next training begins anew.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use arrow::array::ArrayRef;
use arrow::compute::can_cast_types;
use arrow::datatypes::DataType;
use catalog::ObjectName;
use catalog::models::{LoadedModel, Manifest, StoredConsent, StoredStart};
use catalog::subject_copies::CopiedKey;
use catalog::subjects::Subject;
use datafusion::logical_expr::LogicalPlan;
use udfs::privacy::Token;

use crate::consent::models::{PersonColumn, TrainedFor};
use crate::consent::withdrawals;
use crate::engine::Engine;
use crate::error::Result;
use crate::policy::since::{self, Versions};
use crate::session::StatementContext;
use crate::subject::can_be_made;

/// For what the next version is trained, and from what.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) trained_for: TrainedFor,
    /// The tables and views that are read for it, and were for the models that it asks.
    read_from: Vec<String>,
    /// Whether it asks a model of which nothing tells what was read for it.
    reads_unknown: bool,
    /// The versions that it asks and that persons have left.
    pub(crate) left_models: BTreeSet<String>,
    /// The policies that these tables are under.
    policies: Versions,
}

/// What a version has learned from, as its manifest tells it.
pub(crate) struct LearnedFrom {
    pub(crate) users_of: BTreeSet<CopiedKey>,
    pub(crate) records_of: Option<BTreeSet<CopiedKey>>,
    pub(crate) read_from: Vec<String>,
    pub(crate) reads_unknown: bool,
    pub(crate) policies: Versions,
}

impl Next {
    /// Of a training whose query and tables beside it are planned in a context.
    ///
    /// # Errors
    /// When consents could not be followed to the model's users, or what is known of persons cannot
    /// be read.
    pub(crate) async fn of(
        context: &StatementContext,
        plan: &LogicalPlan,
        persons: Option<PersonColumn>,
    ) -> Result<Self> {
        let trained_for = TrainedFor::new(context, plan, persons).await?;
        let mut read_from: BTreeSet<String> =
            context.opened_names().iter().map(ToString::to_string).collect();
        let mut policies = context.policies().versions();
        let (mut reads_unknown, mut left_models) = (false, BTreeSet::new());
        let asked = context.opening().asked();
        if !asked.is_empty() {
            let leavers = Leavers::load(context.engine()).await?;
            for model in &asked {
                through(&model.manifest, &mut read_from, &mut policies);
                reads_unknown |= model.manifest.all_read_from().is_empty();
                if leavers.left(model, None).await?.is_some() {
                    left_models.insert(model.to_string());
                }
            }
        }
        let read_from = read_from.into_iter().collect();
        Ok(Self { trained_for, read_from, reads_unknown, left_models, policies })
    }

    /// What a version has learned from, with what the one has that it goes on from, if it does:
    /// that one's users may be among its own, and what was read for it need not be read any more. A
    /// policy that came or changed between the two is newer than what the version knows.
    pub(crate) fn learned_from(
        &self,
        start: StoredStart,
        before: Option<&Manifest>,
    ) -> LearnedFrom {
        let mut users_of = self.trained_for.users_of().clone();
        let mut records_of = self.trained_for.records_of().cloned();
        let mut read_from: BTreeSet<String> = self.read_from.iter().cloned().collect();
        let (mut reads_unknown, mut policies) = (self.reads_unknown, self.policies.clone());
        if let (StoredStart::GoesOn { .. }, Some(before)) = (start, before) {
            users_of.extend(before.users_of.iter().cloned());
            // Known where it is known of both.
            records_of = records_of.zip(before.records_of.clone()).map(|(mut of, before)| {
                of.extend(before);
                of
            });
            reads_unknown |= before.all_read_from().is_empty();
            for (table, policies) in &mut policies {
                let known = before.policies.get(table);
                policies.retain(|policy, version| {
                    !before.may_have_read(table)
                        || known.and_then(|known| known.get(policy)) == Some(&*version)
                });
            }
            through(before, &mut read_from, &mut policies);
        }
        let read_from = read_from.into_iter().collect();
        LearnedFrom { users_of, records_of, read_from, reads_unknown, policies }
    }

    /// Why what a version knows is more than its tables show by now; `None` where their policies
    /// are those under which it was trained.
    ///
    /// # Errors
    /// When the policies of a table that is not read any more cannot be read.
    async fn newer_policy(
        &self,
        engine: &Engine,
        number: u32,
        manifest: &Manifest,
    ) -> Result<Option<String>> {
        let read = self.policies.iter().filter(|(table, _)| manifest.may_have_read(table));
        for (table, policies) in read {
            if let Some(why) = newer(number, manifest, table, policies) {
                return Ok(Some(why));
            }
        }
        for table in manifest.read_from.iter().filter(|table| !self.read_from.contains(table)) {
            let policies = since::policies_of(engine.catalog(), table).await?;
            if let Some(why) = newer(number, manifest, table, &policies) {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }
}

/// Which of a table's policies a version does not know as it is, in words.
fn newer(
    number: u32,
    manifest: &Manifest,
    table: &str,
    policies: &BTreeMap<String, String>,
) -> Option<String> {
    let known = manifest.policies.get(table);
    let is_known =
        |policy: &str, version: &String| known.and_then(|known| known.get(policy)) == Some(version);
    let (policy, _) = policies.iter().find(|(policy, version)| !is_known(policy, version))?;
    Some(format!("version {number} is older than {policy} on {table}"))
}

/// Adds what was read for a model to what is read, with the policies that it has learned under: of
/// a table that is read for both, those alone that were the same.
fn through(manifest: &Manifest, read_from: &mut BTreeSet<String>, policies: &mut Versions) {
    for table in &manifest.read_from {
        let known = manifest.policies.get(table);
        if read_from.insert(table.clone()) {
            policies.extend(known.map(|known| (table.clone(), known.clone())));
        } else if let Some(policies) = policies.get_mut(table) {
            policies.retain(|policy, version| {
                known.and_then(|known| known.get(policy)) == Some(&*version)
            });
        }
    }
    policies.retain(|_, policies| !policies.is_empty());
}

/// A subject, as far as its persons may be in models.
struct OfSubject {
    subject: Subject,
    /// The tables with ids of its persons.
    tables: BTreeSet<ObjectName>,
    /// Its restricted and erased persons.
    hidden: HashSet<Token>,
}

/// What is known of whoever may leave models.
pub(crate) struct Leavers<'a> {
    engine: &'a Engine,
    subjects: Vec<OfSubject>,
}

/// The consents by which a version's rows were chosen, or those of the next one are.
struct Governed {
    purpose: Option<String>,
    channel: Option<String>,
    consents: Vec<StoredConsent>,
}

impl<'a> Leavers<'a> {
    /// Reads who is restricted and erased, and where persons are.
    ///
    /// # Errors
    /// When what is known of persons cannot be read.
    pub(crate) async fn load(engine: &'a Engine) -> Result<Self> {
        let catalog = engine.catalog();
        let copies = catalog.copies_now().await?;
        let mut subjects = Vec::new();
        for (subject, hidden) in catalog.hidden_persons().await? {
            let copies = copies.iter().filter(|(_, copy)| subject.counts(copy));
            let tables = subject.tables().into_iter().chain(copies.map(|(table, _)| table));
            let tables = tables.cloned().collect();
            subjects.push(OfSubject { subject, tables, hidden });
        }
        Ok(Self { engine, subjects })
    }

    /// The subjects whose persons may be in a version: those of whose ids its users or records
    /// came, or with ids in what was read for it.
    fn subjects_in(&self, manifest: &Manifest) -> impl Iterator<Item = &OfSubject> {
        self.subjects
            .iter()
            .filter(move |of| manifest.may_hold(|ids| of.subject.counts(ids), &of.tables))
    }

    /// Whether anybody may leave a version, as consents have chosen its rows, or choose those of
    /// the next one, or persons of a subject may be in it.
    pub(crate) fn may_leave(&self, manifest: &Manifest, next: Option<&Next>) -> bool {
        self.subjects_in(manifest).next().is_some()
            || !Governed::of(manifest, next).consents.is_empty()
    }

    /// Who has left a version, in words; `None` where nobody has. `next` is the version after it,
    /// where that is being trained.
    ///
    /// # Errors
    /// When what is known of persons cannot be read.
    pub(crate) async fn left(
        &self,
        version: &LoadedModel,
        next: Option<&Next>,
    ) -> Result<Option<String>> {
        let (manifest, number) = (&version.manifest, version.version);
        if let Some(why) = self.of_chain(number, manifest, next) {
            return Ok(Some(why));
        }
        if let Some(next) = next
            && let Some(why) = next.newer_policy(self.engine, number, manifest).await?
        {
            return Ok(Some(why));
        }
        let governed = Governed::of(manifest, next);
        if !governed.consents.is_empty() {
            match self.withdrawn(version, &governed).await {
                Some(0) => {}
                Some(count) => {
                    let why = format!("persons in version {number} without consent: {count}");
                    return Ok(Some(why));
                }
                None => {
                    let why = format!(
                        "whether all persons of whom version {number} has learned consent still \
                         cannot be told"
                    );
                    return Ok(Some(why));
                }
            }
        }
        // How many they are is told to nobody who reads without them.
        if self.holds_hidden(version).await? {
            return Ok(Some(format!("version {number} holds persons whom nobody may see")));
        }
        let cannot_tell = self.may_hold_hidden(manifest, next).await?;
        Ok(cannot_tell.then(|| {
            format!("whether version {number} holds persons whom nobody may see cannot be told")
        }))
    }

    /// What a manifest alone tells of who has left a version.
    pub(crate) fn of_chain(
        &self,
        number: u32,
        manifest: &Manifest,
        next: Option<&Next>,
    ) -> Option<String> {
        if manifest.replaces.is_some() {
            return Some(format!("persons were erased from version {number}"));
        }
        if !manifest.left_models.is_empty() {
            let models = manifest.left_models.iter().map(String::as_str).collect::<Vec<_>>();
            let models = models.join(" and ");
            return Some(format!("version {number} learned from {models}, which persons had left"));
        }
        match manifest.start {
            _ if !self.may_leave(manifest, next) => None,
            StoredStart::Anew | StoredStart::GoesOn { holds_all: true, .. } => None,
            StoredStart::GoesOn { version: before, .. } => Some(format!(
                "version {number} goes on from version {before}, which knows persons that it does \
                 not hold"
            )),
            StoredStart::Unknown => {
                Some(format!("nothing tells what version {number} goes on from"))
            }
        }
    }

    /// Whether more than the manifest tells who has left a version.
    pub(crate) fn look_into(&self, manifest: &Manifest) -> bool {
        !manifest.consents.is_empty() || self.subjects_in(manifest).any(|of| !of.hidden.is_empty())
    }

    /// How many users of a version do not consent now; `None` where that cannot be told.
    async fn withdrawn(&self, version: &LoadedModel, governed: &Governed) -> Option<usize> {
        let users = version.model.recommender()?.user_ids().values();
        let purpose = governed.purpose.as_deref()?;
        let asked = (purpose, governed.channel.as_deref());
        withdrawals::withdrawn(self.engine, &users, &governed.consents, asked).await
    }

    /// Whether users or records of a version are of restricted or erased persons.
    async fn holds_hidden(&self, version: &LoadedModel) -> Result<bool> {
        let Some(ids) = persons(version) else { return Ok(false) };
        let subjects = self.subjects_in(&version.manifest);
        let marked: Vec<&OfSubject> = subjects.filter(|of| !of.hidden.is_empty()).collect();
        if marked.is_empty() || !can_cast_types(ids.data_type(), &DataType::Utf8) {
            return Ok(false);
        }
        let tokens = self.engine.catalog().subject_tokens().await?;
        for of in marked {
            if tokens.find(&of.subject.name, &ids, &of.hidden)?.true_count() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a subject has persons whom nobody may see and who may be among the users or records
    /// of a version under ids that cannot be looked for: what was made of theirs cannot be made
    /// again, or the next version makes other ones than this one is known to have.
    async fn may_hold_hidden(&self, manifest: &Manifest, next: Option<&Next>) -> Result<bool> {
        let subjects = self.subjects_in(manifest).filter(|of| !of.hidden.is_empty());
        let marked: BTreeSet<&str> = subjects.map(|of| of.subject.name.as_str()).collect();
        let is_new = |ids: &CopiedKey| {
            marked.contains(ids.subject.as_str()) && !manifest.users_of.contains(ids)
        };
        if next.is_some_and(|next| next.trained_for.users_of().iter().any(is_new)) {
            return Ok(true);
        }
        for ids in &manifest.users_of {
            let can_be_made = match &ids.by {
                _ if !marked.contains(ids.subject.as_str()) => true,
                Some(by) => can_be_made(self.engine.catalog(), by).await?,
                None => false,
            };
            if !can_be_made {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Governed {
    /// Both taken together: a policy tells who has left only where its persons are the users of
    /// both.
    fn of(manifest: &Manifest, next: Option<&Next>) -> Self {
        let Some(Next { trained_for: next, .. }) = next else {
            return Self {
                purpose: manifest.purpose.clone(),
                channel: manifest.channel.clone(),
                consents: manifest.consents.clone(),
            };
        };
        let of_policy = |consent: StoredConsent| (consent.policy.clone(), consent);
        let mut all: BTreeMap<String, StoredConsent> =
            next.consents().into_iter().map(of_policy).collect();
        for consent in &manifest.consents {
            match all.get_mut(&consent.policy) {
                Some(found) => {
                    found.of_users &= consent.of_users;
                    found.ways = consent.ways.clone();
                }
                None => {
                    let dropped = StoredConsent { of_users: false, ..consent.clone() };
                    all.insert(consent.policy.clone(), dropped);
                }
            }
        }
        // Consents to another purpose, or for another channel, tell nothing of this one.
        let (channel, of_channel) = (next.channel(), manifest.channel == next.channel());
        let purpose = match (next.purpose(), manifest.purpose.clone()) {
            (Some(now), Some(then)) => Some(now).filter(|now| *now == then && of_channel),
            (now, then) => now.or(then),
        };
        Self { purpose, channel, consents: all.into_values().collect() }
    }
}

/// The ids of whom a version has learned, where it keeps any.
pub(super) fn persons(version: &LoadedModel) -> Option<ArrayRef> {
    let recommender = version.model.recommender().map(|found| found.user_ids().values());
    let records = || version.model.entities().map(|found| ArrayRef::clone(&found.parts().ids));
    recommender.or_else(records)
}
