//! Between a model in memory and what its files and manifest hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use udfs::model::als::{AlsFactors, AlsOptions, Feedback, Scaling, Solver};
use udfs::model::hybrid::{Base, Member, Signal, Weight};
use udfs::model::{
    AlsModel, Csr, HybridModel, IdIndex, ItemModel, ItemParts, Model, ModelError, ModelParts,
    PopularityModel, PopularityParts, Recommender, Segments, Similarity,
};

use super::entity_parts::{self, StoredEntities};
use super::feature_parts::{self, StoredFeatures};
use super::manifest::Manifest;
use super::model_files::{Column, Columns, Kind, Table};
use crate::error::{Error, Result};

/// The learner's options as the manifest holds them; see [`AlsOptions`] for their meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredOptions {
    implicit: bool,
    num_factors: usize,
    max_iterations: usize,
    l2_reg: Option<f64>,
    wals_alpha: Option<f64>,
    regularization_scaling: Option<StoredScaling>,
    frequency_exponent: f64,
    solver: StoredSolver,
    cg_steps: usize,
    biases: bool,
    seed: u64,
    min_rel_progress: Option<f64>,
    #[serde(default)]
    block_size: Option<usize>,
    #[serde(default)]
    non_negative: bool,
    #[serde(default = "one")]
    feature_reg: f64,
}

fn one() -> f64 {
    1.0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredScaling {
    Constant,
    Count,
    Frequency,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredSolver {
    Auto,
    Cholesky,
    ConjugateGradient,
    Subspace,
}

impl StoredOptions {
    /// The options of a model.
    pub fn new(options: &AlsOptions) -> Self {
        Self {
            implicit: options.feedback == Feedback::Implicit,
            num_factors: options.num_factors,
            max_iterations: options.max_iterations,
            l2_reg: options.l2_reg,
            wals_alpha: options.wals_alpha,
            regularization_scaling: options.regularization_scaling.map(|scaling| match scaling {
                Scaling::Constant => StoredScaling::Constant,
                Scaling::Count => StoredScaling::Count,
                Scaling::Frequency => StoredScaling::Frequency,
            }),
            frequency_exponent: options.frequency_exponent,
            solver: match options.solver {
                Solver::Auto => StoredSolver::Auto,
                Solver::Cholesky => StoredSolver::Cholesky,
                Solver::ConjugateGradient => StoredSolver::ConjugateGradient,
                Solver::Subspace => StoredSolver::Subspace,
            },
            cg_steps: options.cg_steps,
            biases: options.biases,
            seed: options.seed,
            min_rel_progress: options.min_rel_progress,
            block_size: options.block_size,
            non_negative: options.non_negative,
            feature_reg: options.feature_reg,
        }
    }

    /// The options for the learner.
    pub fn to_options(&self) -> AlsOptions {
        AlsOptions {
            feedback: if self.implicit { Feedback::Implicit } else { Feedback::Explicit },
            num_factors: self.num_factors,
            max_iterations: self.max_iterations,
            l2_reg: self.l2_reg,
            wals_alpha: self.wals_alpha,
            regularization_scaling: self.regularization_scaling.map(|scaling| match scaling {
                StoredScaling::Constant => Scaling::Constant,
                StoredScaling::Count => Scaling::Count,
                StoredScaling::Frequency => Scaling::Frequency,
            }),
            frequency_exponent: self.frequency_exponent,
            solver: match self.solver {
                StoredSolver::Auto => Solver::Auto,
                StoredSolver::Cholesky => Solver::Cholesky,
                StoredSolver::ConjugateGradient => Solver::ConjugateGradient,
                StoredSolver::Subspace => Solver::Subspace,
            },
            cg_steps: self.cg_steps,
            biases: self.biases,
            seed: self.seed,
            min_rel_progress: self.min_rel_progress,
            block_size: self.block_size,
            non_negative: self.non_negative,
            feature_reg: self.feature_reg,
        }
    }
}

/// What a type of model needs, beside its files, to be put together again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StoredLearner {
    /// A matrix factorization.
    MatrixFactorization {
        /// The learner's options.
        options: StoredOptions,
        /// Whether users and items have biases.
        biased: bool,
        /// The mean rating; 0 without biases.
        global_mean: f32,
    },
    /// Item neighbourhoods.
    ItemKnn,
    /// The item-item weights of EASE.
    Ease,
    /// What is popular.
    Popularity {
        /// Whether there are rankings of segments.
        segmented: bool,
    },
    /// What is told of items beside, as a member of a blend.
    Signal {
        /// Its name.
        name: String,
    },
    /// A blend of signals and of models, one of each type at most: their columns have names of
    /// their own.
    Hybrid {
        /// The models in the order that scores are added up.
        members: Vec<StoredMember>,
    },
    /// A model of rows of features.
    Features(StoredFeatures),
    /// A model of entities.
    Entities(Box<StoredEntities>),
}

/// A model of a blend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredMember {
    /// The share of the blend.
    share: f32,
    /// How far the model's own scores spread.
    scale: f32,
    /// What it needs to be put together again.
    learner: StoredLearner,
}

impl StoredLearner {
    /// What is kept of a model.
    pub fn new(model: &Model) -> Self {
        match model {
            Model::Als(model) => Self::factorization(model),
            Model::Item(model) => Self::item_weights(model),
            Model::Popularity(model) => Self::popularity(model),
            Model::Hybrid(model) => {
                let member = |member: &Member| StoredMember {
                    share: member.weight.share,
                    scale: member.weight.scale,
                    learner: match &member.base {
                        Base::Als(model) => Self::factorization(model),
                        Base::Item(model) => Self::item_weights(model),
                        Base::Popularity(model) => Self::popularity(model),
                        Base::Signal(signal) => Self::Signal { name: signal.name().to_owned() },
                    },
                };
                Self::Hybrid { members: model.members().map(member).collect() }
            }
            Model::KMeans(model) => Self::Features(StoredFeatures::clusters(model)),
            Model::Pca(model) => Self::Features(StoredFeatures::components(model)),
            Model::IsolationForest(model) => Self::Features(StoredFeatures::forest(model)),
            Model::Outlier(model) => Self::Features(StoredFeatures::outliers(model)),
            Model::Boosted(model) => Self::Features(StoredFeatures::trees(model)),
            Model::Entities(model) => Self::Entities(Box::new(StoredEntities::new(model))),
        }
    }

    fn factorization(model: &AlsModel) -> Self {
        Self::MatrixFactorization {
            options: StoredOptions::new(model.options()),
            biased: !model.user_bias().is_empty(),
            global_mean: model.global_mean(),
        }
    }

    fn item_weights(model: &ItemModel) -> Self {
        match model.similarity() {
            Similarity::Sparse(_) => Self::ItemKnn,
            Similarity::Dense(_) => Self::Ease,
        }
    }

    /// The learners of one model: itself, or the members of a blend.
    fn recommenders(&self) -> Vec<&Self> {
        match self {
            Self::Hybrid { members } => members.iter().map(|member| &member.learner).collect(),
            one => vec![one],
        }
    }

    fn popularity(model: &PopularityModel) -> Self {
        Self::Popularity { segmented: model.segments().is_some() }
    }
}

/// The files of a version: their columns by the file's name in the manifest.
pub type Pieces<'a> = BTreeMap<&'static str, Columns<'a>>;

/// What a model's files hold.
///
/// # Errors
/// When they cannot hold the model.
pub fn pieces(model: &Model) -> Result<Pieces<'_>> {
    let mut pieces = match model.recommender() {
        Some(recommender) => recommender_pieces(recommender),
        None => Pieces::new(),
    };
    match model {
        Model::Als(model) => add_factors(&mut pieces, model),
        Model::Item(model) => add_item_weights(&mut pieces, model),
        Model::Popularity(model) => add_popularity(&mut pieces, model),
        Model::Hybrid(model) => {
            for member in model.members() {
                match &member.base {
                    Base::Als(model) => add_factors(&mut pieces, model),
                    Base::Item(model) => add_item_weights(&mut pieces, model),
                    Base::Popularity(model) => add_popularity(&mut pieces, model),
                    Base::Signal(_) => {}
                }
            }
            add_signals(&mut pieces, model);
        }
        Model::KMeans(model) => pieces = feature_parts::clusters(model.learned()),
        Model::Pca(model) => pieces = feature_parts::components(model.learned()),
        Model::IsolationForest(model) => pieces = feature_parts::forest(model.learned()),
        // The manifest has all of it.
        Model::Outlier(_) => {}
        Model::Boosted(model) => pieces = feature_parts::trees(model.learned())?,
        Model::Entities(model) => pieces = entity_parts::pieces(model)?,
    }
    Ok(pieces)
}

fn add_factors<'a>(pieces: &mut Pieces<'a>, model: &'a AlsModel) {
    let width = model.num_factors();
    for (name, factors, bias) in [
        ("users", model.user_factors(), model.user_bias()),
        ("items", model.item_factors(), model.item_bias()),
    ] {
        let columns = pieces.entry(name).or_default();
        columns.push(("factors", Column::Vectors(factors, width)));
        if !bias.is_empty() {
            columns.push(("bias", Column::Numbers(bias)));
        }
    }
}

fn add_item_weights<'a>(pieces: &mut Pieces<'a>, model: &'a ItemModel) {
    match model.similarity() {
        Similarity::Sparse(cells) => {
            pieces.insert("neighbors", cell_columns(cells, "item", "neighbor"));
        }
        Similarity::Dense(weights) => {
            let vectors = Column::Vectors(weights, model.item_ids().len());
            pieces.entry("items").or_default().push(("weights", vectors));
        }
    }
}

fn add_popularity<'a>(pieces: &mut Pieces<'a>, model: &'a PopularityModel) {
    let items = pieces.entry("items").or_default();
    items.push(("weight", Column::Numbers(model.weights())));
    if let Some(segments) = model.segments() {
        let users = pieces.entry("users").or_default();
        users.push(("segment", Column::Codes(&segments.of_user)));
        let weights = segments.weights.iter().map(Vec::as_slice).collect();
        pieces.insert("segments", vec![("weights", Column::Lists(weights))]);
    }
}

/// One row a signal of a blend.
fn add_signals<'a>(pieces: &mut Pieces<'a>, model: &'a HybridModel) {
    let signals = model.members().filter_map(|member| member.base.signal());
    let values: Vec<&[f32]> = signals.map(Signal::values).collect();
    if !values.is_empty() {
        pieces.insert("signals", vec![("values", Column::Lists(values))]);
    }
}

/// Users, items and interactions, which every recommender has.
fn recommender_pieces<'a>(model: &'a dyn Recommender) -> Pieces<'a> {
    BTreeMap::from([
        ("users", vec![("id", Column::Ids(model.user_ids().values()))]),
        ("items", vec![("id", Column::Ids(model.item_ids().values()))]),
        ("seen", cell_columns(model.seen(), "user", "item")),
    ])
}

fn cell_columns<'a>(cells: &'a Csr, row: &'static str, column: &'static str) -> Columns<'a> {
    vec![
        (row, Column::Rows(cells.offsets())),
        (column, Column::Codes(cells.column_indices())),
        ("weight", Column::Numbers(cells.values())),
    ]
}

/// The columns to read of each file of a version.
///
/// # Errors
/// When the manifest names no such file.
pub fn wanted(manifest: &Manifest) -> Result<BTreeMap<&'static str, Vec<(&'static str, Kind)>>> {
    if let StoredLearner::Features(features) = &manifest.learner {
        return Ok(features.wanted());
    }
    if let StoredLearner::Entities(entities) = &manifest.learner {
        return Ok(entities.wanted(manifest));
    }
    let (users, items) = (rows(manifest, "users")?, rows(manifest, "items")?);
    let cells = |row, column, rows| {
        vec![(row, Kind::Rows(rows)), (column, Kind::Codes), ("weight", Kind::Numbers)]
    };
    let mut wanted = BTreeMap::from([
        ("users", vec![("id", Kind::Ids)]),
        ("items", vec![("id", Kind::Ids)]),
        ("seen", cells("user", "item", users)),
    ]);
    for learner in manifest.learner.recommenders() {
        let mut also = |file, name, kind| wanted.entry(file).or_default().push((name, kind));
        match learner {
            StoredLearner::MatrixFactorization { options, biased, .. } => {
                for side in ["users", "items"] {
                    also(side, "factors", Kind::Vectors(options.num_factors));
                    if *biased {
                        also(side, "bias", Kind::Numbers);
                    }
                }
            }
            StoredLearner::ItemKnn => {
                wanted.insert("neighbors", cells("item", "neighbor", items));
            }
            StoredLearner::Ease => also("items", "weights", Kind::Vectors(items)),
            StoredLearner::Popularity { segmented } => {
                also("items", "weight", Kind::Numbers);
                if *segmented {
                    also("users", "segment", Kind::Codes);
                    also("segments", "weights", Kind::Vectors(items));
                }
            }
            StoredLearner::Signal { .. } => {
                wanted.insert("signals", vec![("values", Kind::Vectors(items))]);
            }
            StoredLearner::Hybrid { .. }
            | StoredLearner::Features(_)
            | StoredLearner::Entities(_) => {}
        }
    }
    Ok(wanted)
}

fn rows(manifest: &Manifest, name: &str) -> Result<usize> {
    let file = manifest.files.get(name);
    let file = file.ok_or_else(|| Error::invalid(format!("it names no file {name}")))?;
    Ok(usize::try_from(file.rows).unwrap_or(usize::MAX))
}

/// Puts a model together from what its files hold.
///
/// # Errors
/// When the parts contradict each other: ids that repeat, codes out of range.
pub fn assemble(tables: BTreeMap<&'static str, Table>, manifest: &Manifest) -> Result<Model> {
    if let StoredLearner::Features(features) = &manifest.learner {
        return features.assemble(tables, manifest);
    }
    if let StoredLearner::Entities(entities) = &manifest.learner {
        return entities.assemble(tables, manifest);
    }
    let (mut files, common) = Files::new(tables, manifest)?;
    match &manifest.learner {
        StoredLearner::Hybrid { members } => {
            let mut signals = files.signals(common.items.len())?.into_iter();
            let member = |of: &StoredMember| {
                let base = match &of.learner {
                    StoredLearner::Signal { name } => signal(name, signals.next(), common.clone())?,
                    learner => {
                        Base::try_from(files.model(learner, common.clone())?).map_err(wrong)?
                    }
                };
                Ok(Member { base, weight: Weight { share: of.share, scale: of.scale } })
            };
            let members = members.iter().map(member).collect::<Result<_>>()?;
            Ok(HybridModel::from_members(members).map_err(wrong)?.into())
        }
        learner => files.model(learner, common),
    }
}

/// What every recommender has.
#[derive(Clone)]
struct Common {
    users: IdIndex,
    items: IdIndex,
    seen: Csr,
}

/// What the files of a recommender hold beside.
struct Files<'a> {
    tables: BTreeMap<&'static str, Table>,
    manifest: &'a Manifest,
    users: Table,
    items: Table,
}

impl<'a> Files<'a> {
    fn new(
        mut tables: BTreeMap<&'static str, Table>,
        manifest: &'a Manifest,
    ) -> Result<(Self, Common)> {
        let (mut users, mut items) = (take(&mut tables, "users")?, take(&mut tables, "items")?);
        let user_ids = IdIndex::from_values(&manifest.user_col, users.ids("id")?).map_err(wrong)?;
        let item_ids = IdIndex::from_values(&manifest.item_col, items.ids("id")?).map_err(wrong)?;
        let seen = cells(&mut take(&mut tables, "seen")?, "user", "item", item_ids.len())?;
        let common = Common { users: user_ids, items: item_ids, seen };
        Ok((Self { tables, manifest, users, items }, common))
    }

    /// Takes the values of signals, of so many items, out of the files.
    fn signals(&mut self, items: usize) -> Result<Vec<Vec<f32>>> {
        let Some(mut table) = self.tables.remove("signals") else { return Ok(vec![]) };
        let values = table.numbers("values")?;
        Ok(values.chunks_exact(items.max(1)).map(<[f32]>::to_vec).collect())
    }

    /// Takes a model out of the files.
    fn model(&mut self, learner: &StoredLearner, common: Common) -> Result<Model> {
        let Common { users, items, seen } = common;
        let count = items.len();
        match learner {
            StoredLearner::MatrixFactorization { options, biased, global_mean } => {
                let bias = |side: &mut Table| match biased {
                    true => side.numbers("bias"),
                    false => Ok(vec![]),
                };
                let iterations = &self.manifest.iterations;
                let factors = AlsFactors {
                    user_factors: self.users.numbers("factors")?,
                    item_factors: self.items.numbers("factors")?,
                    user_bias: bias(&mut self.users)?,
                    item_bias: bias(&mut self.items)?,
                    global_mean: *global_mean,
                    losses: iterations.iter().map(|iteration| iteration.loss).collect(),
                };
                let options = options.to_options();
                let parts = ModelParts { users, items, factors, seen, options };
                Ok(AlsModel::from_parts(parts).map_err(wrong)?.into())
            }
            StoredLearner::ItemKnn => {
                let mut neighbors = take(&mut self.tables, "neighbors")?;
                let similarity =
                    Similarity::Sparse(cells(&mut neighbors, "item", "neighbor", count)?);
                let parts = ItemParts { users, items, seen, similarity };
                Ok(ItemModel::from_parts(parts).map_err(wrong)?.into())
            }
            StoredLearner::Ease => {
                let similarity = Similarity::Dense(self.items.numbers("weights")?);
                let parts = ItemParts { users, items, seen, similarity };
                Ok(ItemModel::from_parts(parts).map_err(wrong)?.into())
            }
            StoredLearner::Popularity { segmented } => {
                let segments = match segmented {
                    false => None,
                    true => {
                        let weights = take(&mut self.tables, "segments")?.numbers("weights")?;
                        let weights = weights.chunks_exact(count.max(1));
                        let weights = weights.map(<[f32]>::to_vec).collect();
                        Some(Segments { of_user: self.users.codes("segment")?, weights })
                    }
                };
                let weights = self.items.numbers("weight")?;
                let parts = PopularityParts { users, items, seen, weights, segments };
                Ok(PopularityModel::from_parts(parts).map_err(wrong)?.into())
            }
            StoredLearner::Signal { .. }
            | StoredLearner::Hybrid { .. }
            | StoredLearner::Features(_)
            | StoredLearner::Entities(_) => {
                Err(Error::invalid("a model that is no recommender of one type"))
            }
        }
    }
}

fn signal(name: &str, values: Option<Vec<f32>>, common: Common) -> Result<Base> {
    let weights = values.ok_or_else(|| Error::invalid("a signal has no values"))?;
    let Common { users, items, seen } = common;
    let parts = PopularityParts { users, items, seen, weights, segments: None };
    let scores = PopularityModel::from_parts(parts).map_err(wrong)?;
    Ok(Base::Signal(Signal::new(name.to_owned(), scores)))
}

fn take(tables: &mut BTreeMap<&'static str, Table>, name: &str) -> Result<Table> {
    tables.remove(name).ok_or_else(|| Error::invalid("a file was not read"))
}

fn wrong(error: ModelError) -> Error {
    Error::invalid(error.to_string())
}

fn cells(table: &mut Table, row: &str, column: &str, columns: usize) -> Result<Csr> {
    let (offsets, codes) = (table.offsets(row)?, table.codes(column)?);
    Csr::new(offsets, codes, table.numbers("weight")?, columns).map_err(wrong)
}
