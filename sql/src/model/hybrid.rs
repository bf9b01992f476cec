//! `model_type = 'hybrid'`: several recommenders learned from the same rows and blended.
//!
//! The models learn from the training part; what each of them counts for is learned on the
//! validation part, by the metric of the lists itself; then they learn anew from both. The blend is
//! measured on the test part, of which neither has seen anything. Columns of the item table
//! ([`super::signals`]) are weighed likewise.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;

use serde_json::Value as Json;
use udfs::model::hybrid::{self, Base, Member, Signal, Weight};
use udfs::model::{Csr, HybridModel, Model, als};

use crate::error::{Error, Result};
use crate::model::fit::judge;
use crate::model::learners::{Learner, PopularityOptions, RECOMMENDERS};
use crate::model::options::{TrainingOptions, model_error};
use crate::model::reader::Reader;
use crate::model::rows::{Learned, Rows};
use crate::model::splitting::Parts;

/// The models that can be blended, in the order that their scores are added up.
const BASES: [&str; 4] = ["matrix_factorization", "item_knn", "ease", "popularity"];

/// What is blended unless `base_models` says.
const USUAL: [&str; 3] = ["matrix_factorization", "item_knn", "popularity"];

/// The regularization of EASE, whose own name is that of the factorization here.
pub const EASE_L2_REG: &str = "ease_l2_reg";

/// The options of a blend: its own, and those of its models.
pub const OPTIONS: [&str; 26] = [
    "base_models",
    "signals",
    EASE_L2_REG,
    "num_factors",
    "max_iterations",
    "l2_reg",
    "wals_alpha",
    "regularization_scaling",
    "frequency_exponent",
    "solver",
    "cg_steps",
    "block_size",
    "non_negative",
    "item_features",
    "user_table",
    "user_features",
    "feature_reg",
    "similarity",
    "num_neighbors",
    "shrinkage",
    "bm25_k1",
    "bm25_b",
    "rp3_alpha",
    "rp3_beta",
    "half_life",
    "timestamp_col",
];

/// Options of a blend.
#[derive(Debug, Clone, PartialEq)]
pub struct HybridOptions {
    /// The learners, each of another type.
    pub bases: Vec<Learner>,
    /// Columns of the item table that count beside them.
    pub signals: Vec<String>,
    /// What each of both counts for, once that was learned.
    pub weights: Option<Vec<Weight>>,
}

impl HybridOptions {
    /// Reads the options of a statement.
    ///
    /// # Errors
    /// When `base_models` names no two recommenders, or a value is not taken.
    pub fn read(given: &BTreeMap<String, Json>) -> Result<Self> {
        let named = named(given)?;
        for option in given.keys().filter(|option| OPTIONS.contains(&option.as_str())) {
            if named.iter().any(|base| takes(base, option)) {
                continue;
            }
            if let Some(base) = BASES.into_iter().find(|base| takes(base, option)) {
                return Err(Error::invalid_hint(
                    format!("option {option} is of {base}, which base_models leaves out"),
                    "leave the option out, or name the model in base_models",
                ));
            }
        }
        let base = |base: &&'static str| {
            let mut own: BTreeMap<String, Json> = given
                .iter()
                .filter(|(option, _)| takes(base, option) || *option == "seed")
                .map(|(option, value)| (option.clone(), value.clone()))
                .collect();
            if let Some(l2_reg) = own.remove(EASE_L2_REG) {
                own.insert("l2_reg".into(), l2_reg);
            }
            own.insert("model_type".into(), Json::from(*base));
            if *base == "matrix_factorization" {
                own.insert("feedback_type".into(), Json::from("implicit"));
            }
            Learner::read(&own)
        };
        let bases = named.iter().map(base).collect::<Result<_>>()?;
        Ok(Self { bases, signals: Reader(given).columns("signals")?, weights: None })
    }

    /// The learner of each member, and the name of one that is a signal: that is popularity which
    /// was counted elsewhere.
    fn members(&self) -> impl Iterator<Item = (Learner, Option<&String>)> {
        let bases = self.bases.iter().map(|base| (base.clone(), None));
        let counted = || Learner::Popularity(PopularityOptions::default());
        bases.chain(self.signals.iter().map(move |signal| (counted(), Some(signal))))
    }

    /// Peak bytes of training: all models at once, and the candidates of the weights.
    pub fn memory_bytes(&self, users: usize, items: usize, cells: usize) -> usize {
        let of_members =
            self.members().map(|(learner, _)| learner.memory_bytes(users, items, cells, 0));
        let of_members = of_members.fold(0, usize::saturating_add);
        let popularity = self.bases.iter().find_map(Learner::popularity);
        // Rows and cells of what fades.
        let fades = popularity.is_some_and(|popularity| popularity.half_life_ms.is_some());
        let faded = if fades { cells.saturating_mul(28) } else { 0 };
        // The longest lists that may be asked for.
        let count = self.bases.len() + self.signals.len();
        let candidates = hybrid::memory_bytes(count, users, items, usize::MAX);
        of_members.saturating_add(faded).saturating_add(candidates)
    }

    /// Learns what each member counts for, and what their lists are then worth on the rows that
    /// chose it.
    ///
    /// # Errors
    /// When there is nothing to choose on, or the statement is cancelled.
    pub fn blended(
        &self,
        rows: &Rows,
        parts: &Parts<'_>,
        options: &TrainingOptions,
        report: &mut dyn FnMut(als::Progress),
        cancel: &AtomicBool,
    ) -> Result<(Self, f64)> {
        let judge = judge(options, options.objective, parts, usize::MAX)?;
        let judge = judge.sampled(hybrid::USERS_MAX, options.seed);
        let learner = Learner::Hybrid(self.clone());
        let learned = rows.learn(&parts.training, &learner, None, None, report, cancel)?;
        let Learned::Hybrid(learned) = learned else {
            return Err(Error::Internal("a blend learned something else".into()));
        };
        let mut bases = vec![];
        for (learned, (learner, signal)) in learned.into_iter().zip(self.members()) {
            let (users, items) = (rows.users.clone(), rows.items.clone());
            let seen = Csr::clone(&parts.training);
            let model = learned.into_model(users, items, seen, &learner, cancel)?;
            bases.push(base_of(model, signal)?);
        }
        let recommenders: Vec<_> = bases.iter().map(Base::recommender).collect();
        let (weights, worth) =
            hybrid::weights(&recommenders, &judge, cancel).map_err(model_error)?;
        Ok((Self { weights: Some(weights), ..self.clone() }, worth))
    }

    /// Puts what the models have learned together.
    ///
    /// # Errors
    /// When a part does not fit.
    pub fn put_together(
        &self,
        learned: Vec<Learned>,
        into_model: &dyn Fn(Learned, &Learner) -> Result<Model>,
    ) -> Result<Model> {
        let Some(weights) = &self.weights else {
            return Err(Error::Internal("a blend without weights".into()));
        };
        let mut members = vec![];
        for ((learned, (learner, signal)), &weight) in
            learned.into_iter().zip(self.members()).zip(weights)
        {
            members.push(Member { base: base_of(into_model(learned, &learner)?, signal)?, weight });
        }
        Ok(HybridModel::from_members(members).map_err(model_error)?.into())
    }
}

/// As EXPLAIN shows it.
impl fmt::Display for HybridOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("hybrid")?;
        self.bases.iter().try_for_each(|base| write!(formatter, ", {}", base.model_type()))?;
        self.signals.iter().try_for_each(|signal| write!(formatter, ", signal {signal}"))
    }
}

fn base_of(model: Model, signal: Option<&String>) -> Result<Base> {
    match (model, signal) {
        (Model::Popularity(scores), Some(name)) => {
            Ok(Base::Signal(Signal::new(name.clone(), scores)))
        }
        (model, _) => Base::try_from(model).map_err(model_error),
    }
}

/// The models that `base_models` names, in the order of [`BASES`].
fn named(given: &BTreeMap<String, Json>) -> Result<Vec<&'static str>> {
    let Some(written) = given.get("base_models") else { return Ok(USUAL.to_vec()) };
    let hint = "write base_models = ['matrix_factorization', 'item_knn']: each model once, two or \
                more, or one and signals";
    let wrong = |what: String| Err(Error::invalid_hint(what, hint));
    let Some(list) = written.as_array() else {
        return wrong(format!("option base_models is {written}"));
    };
    let mut found = vec![];
    for name in list {
        let Some(name) = name.as_str() else {
            return wrong(format!("base_models names {name}, which is no text"));
        };
        let Some(base) = BASES.into_iter().find(|base| base.eq_ignore_ascii_case(name)) else {
            return Err(Error::unknown("base model", &format!("'{name}'"), BASES));
        };
        if found.contains(&base) {
            return wrong(format!("base_models names {base} twice"));
        }
        found.push(base);
    }
    if found.is_empty() || (found.len() == 1 && !given.contains_key("signals")) {
        return wrong(format!("base_models = {written} leaves nothing to blend"));
    }
    Ok(BASES.into_iter().filter(|base| found.contains(base)).collect())
}

/// Whether an option of a blend is one of a base model.
fn takes(base: &str, option: &str) -> bool {
    match (base, option) {
        ("ease", option) => option == EASE_L2_REG,
        (base, option) => {
            RECOMMENDERS.iter().any(|(name, options)| *name == base && options.contains(&option))
        }
    }
}
