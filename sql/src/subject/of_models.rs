//! Ids that come of models: whose a model's users and records are.
//!
//! A subject's persons may be in a model whose users or records came of the subject's ids, or that
//! has read a table with such, as they are or as the model's training has made them.
//! A consent policy's persons are a model's users where its version remembers that they are, by the
//! same ways, so that what learns from the model's answers follows the same withdrawals.

use std::collections::BTreeSet;

use catalog::ObjectName;
use catalog::models::{LoadedModel, Manifest};
use catalog::subject_copies::CopiedKey;
use catalog::subjects::{Subject, SubjectKey};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableScan};

use super::ids::{Held, Ids};
use super::lineage::{Rows, column_of};
use super::whose::Persons;
use crate::model::BOUND_NAME;
use crate::model::answers::Answers;
use crate::session::bindings::parse_model_name;

/// Functions that list users of a model.
pub(crate) const LISTING_USERS: [&str; 2] = ["als_similar_users", "ml_similar_users"];

/// Functions that tell what a model knows of a user, who is their second argument.
pub(crate) const OF_USERS: [&str; 6] = [
    "als_recommend",
    "als_score",
    "als_similar_users",
    "ml_reasons",
    "ml_score",
    "ml_similar_users",
];

/// What is known of persons in models.
#[derive(Clone, Copy)]
pub(super) struct OfModels<'a> {
    /// Every subject: of each, a model's users may be persons.
    pub(super) subjects: &'a [Subject],
    /// What tables hold as copies of their ids.
    pub(super) copies: &'a [(ObjectName, CopiedKey)],
    /// The ids of the persons of the consent policy that is followed.
    pub(super) policy: Option<&'a Ids>,
    /// The models that the statement asks.
    pub(super) asked: &'a [LoadedModel],
}

impl OfModels<'_> {
    /// The ids that a model's users are, or its records in a column of that name, in a reading.
    pub(super) fn ids(&self, model: &LoadedModel, column: &str, reading: usize) -> BTreeSet<Ids> {
        let users = Some(model.manifest.user_col.as_str()).filter(|users| !users.is_empty());
        let column = users.unwrap_or(column).to_owned();
        let key = SubjectKey { table: model.name.clone(), column };
        let mut ids = self.of_subjects(&model.manifest, &key);
        ids.extend(self.policy.into_iter().flat_map(|of| of_policy(of, &model.manifest, &key)));
        ids.into_iter().map(|ids| ids.read_in(reading)).collect()
    }

    /// Subjects' persons among a model's users or records, each way that their ids were made.
    fn of_subjects(&self, manifest: &Manifest, key: &SubjectKey) -> BTreeSet<Ids> {
        let mut ids = BTreeSet::new();
        for subject in self.subjects.iter().filter(|subject| self.may_be_in(subject, manifest)) {
            ids.insert(Ids::of_users(&subject.name, key));
            let made = manifest.users_of.iter().filter(|copy| copy.subject == subject.name);
            ids.extend(made.map(|copy| Ids::of_copy(copy, key.clone())));
        }
        ids
    }

    /// Whether a subject's persons may be among a model's users or records.
    fn may_be_in(&self, subject: &Subject, manifest: &Manifest) -> bool {
        let copies = self.copies.iter().filter(|(_, copy)| subject.counts(copy));
        let tables = subject.tables().into_iter().chain(copies.map(|(table, _)| table));
        manifest.may_hold(|ids| subject.counts(ids), tables)
    }

    /// What a column holds of the persons of the consent policy that tells rows apart which a model
    /// of features learned from: nothing by which they could be looked for.
    fn apart(&self, model: &LoadedModel, column: &str, reading: usize) -> BTreeSet<Ids> {
        let key = SubjectKey { table: model.name.clone(), column: column.to_owned() };
        let ids = self.policy.into_iter().flat_map(|of| of_policy(of, &model.manifest, &key));
        ids.map(|ids| ids.hidden().read_in(reading)).collect()
    }

    /// The rows of a table of what a model knows; `None` where nobody is in it.
    pub(super) fn rows(&self, scan: &TableScan, answers: &Answers, reading: usize) -> Option<Rows> {
        let (model, mut rows) = (answers.model(), Rows::default());
        let mut is_anybody = self.policy.is_some_and(|of| answers.shows_rows_under(&of.subject));
        for field in scan.projected_schema.fields() {
            let mut held = Held { readings: BTreeSet::from([reading]), ..Held::default() };
            if answers.has_persons_in(field.name()) {
                held.ids = self.ids(model, field.name(), reading);
                is_anybody |= !held.ids.is_empty();
            } else if answers.tells_apart(field.name()) {
                held.ids = self.apart(model, field.name(), reading);
            }
            rows.columns.push(held);
        }
        rows.persons.readings.insert((reading, model.name.clone()));
        is_anybody.then_some(rows)
    }

    /// Rows of which expressions ask what a model knows of a user are that user's: of a consent
    /// policy's person, whoever names the users, as a list is that the model recommends.
    ///
    /// # Errors
    /// When an expression cannot be walked.
    pub(super) fn told_of<'b>(
        &self,
        exprs: impl IntoIterator<Item = &'b Expr>,
        schema: &DFSchema,
        rows: &mut Rows,
        reading: &dyn Fn() -> usize,
    ) -> Result<()> {
        if self.policy.is_none() {
            return Ok(());
        }
        for expr in exprs {
            expr.apply(|part| {
                if let Expr::ScalarFunction(call) = part
                    && OF_USERS.contains(&call.func.name())
                    && let [model, user, ..] = call.args.as_slice()
                    && let Some(user) = column_of(user)
                    && let Some(at) = schema.maybe_index_of_column(user)
                {
                    self.are_of_user(rows, at, model, reading);
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(())
    }

    /// Rows are of the user in a column of whom nothing else is known.
    fn are_of_user(&self, rows: &mut Rows, at: usize, named: &Expr, reading: &dyn Fn() -> usize) {
        let Some(user) = rows.columns.get_mut(at).filter(|user| user.ids.is_empty()) else {
            return;
        };
        let asked = self.asked.iter().filter(|model| model.model.recommender().is_some());
        for model in asked.filter(|model| may_be_named(model, named)) {
            let reading = reading();
            let ids = self.ids(model, &model.manifest.user_col, reading);
            if !ids.is_empty() {
                rows.persons.readings.insert((reading, model.name.clone()));
                user.readings.insert(reading);
                user.ids.extend(ids);
            }
        }
    }

    /// What a list of users of one of the statement's models holds: ids that cannot be looked for.
    pub(super) fn listed(&self, mut held: Held, persons: &mut Persons, reading: usize) -> Held {
        for model in self.asked.iter().filter(|model| model.model.recommender().is_some()) {
            let ids = self.ids(model, &model.manifest.user_col, reading);
            if !ids.is_empty() {
                persons.readings.insert((reading, model.name.clone()));
                held.readings.insert(reading);
                held.ids.extend(ids.into_iter().map(Ids::hidden));
            }
        }
        held
    }
}

/// Whether the first argument of a call may name a model.
fn may_be_named(model: &LoadedModel, named: &Expr) -> bool {
    let Expr::Literal(named, _) = named else { return true };
    let written = named.try_as_str().flatten().filter(|written| *written != BOUND_NAME);
    let Some(Ok((schema, name, version))) = written.map(parse_model_name) else { return true };
    name == model.name.name
        && schema.is_none_or(|schema| schema == model.name.schema)
        && version.is_none_or(|version| version == model.version)
}

/// A policy's persons among a model's users, each way that their ids were made. Whose the records
/// of a model of entities are by a policy is not kept: there they may be anybody's.
fn of_policy(of: &Ids, manifest: &Manifest, key: &SubjectKey) -> BTreeSet<Ids> {
    let mut ids = BTreeSet::new();
    for consent in manifest.consents.iter().filter(|consent| consent.policy == of.subject) {
        let found = Ids { from: key.clone(), ..of.clone() };
        if consent.of_users {
            let as_they_are = consent.ways.is_empty().then(Vec::new);
            let ways = consent.ways.iter().cloned().chain(as_they_are);
            ids.extend(ways.map(|before| Ids { before, ..found.clone() }));
        } else if manifest.user_col.is_empty() {
            ids.insert(found.hidden());
        }
    }
    ids
}
