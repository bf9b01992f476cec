//! Why a pair has its score: what each of the user's interactions, and what else, added to it.
//!
//! *Item-item weights*: the score is Σ rᵤᵢ·Sᵢⱼ, and interaction i added rᵤᵢ·Sᵢⱼ.
//!
//! *Factorization*: the user's vector solves Aᵤ·x = Σ tᵤᵢ·yᵢ, so that interaction i added
//! yⱼᵀ·Aᵤ⁻¹·tᵤᵢ·yᵢ (Hu, Koren and Volinsky 2008, section 5), with t = 1 + α·r for wanted items of
//! implicit feedback and the rating without mean and item's bias for explicit. The equations are
//! those of fold-in, solved anew in `f64`: contributions add up to the score that fold-in gives the
//! user, which differs from the stored score by what the last half iteration of training moved.
//! With biases the mean, the user's bias and the item's are parts of their own.
//!
//! *Popularity*: the item's weight is all there is; so it is of a signal.
//!
//! *Blend*: what explains the members' scores, times what each member counts for; the parts of one
//! interaction are one.

use std::borrow::Cow;

use super::als_model::AlsModel;
use super::hybrid::{Base, HybridModel};
use super::item_model::ItemModel;
use super::recommender::Recommender;
use super::trained::Model;

/// What a part of a score comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// The user's interaction with this item.
    Interaction(u32),
    /// The mean rating.
    Mean,
    /// What the user rates above the mean.
    UserBias,
    /// What the item is rated above the mean.
    ItemBias,
    /// How popular the item is.
    Popularity,
    /// What the signal that is this member of a blend says of the item.
    Signal(usize),
}

impl Term {
    /// The name of its kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interaction(_) => "interaction",
            Self::Mean => "mean",
            Self::UserBias => "user_bias",
            Self::ItemBias => "item_bias",
            Self::Popularity => "popularity",
            Self::Signal(_) => "signal",
        }
    }
}

/// A part of a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Where it comes from.
    pub term: Term,
    /// The weight of the interaction, or the part itself where there is none.
    pub weight: f32,
    /// What it adds to the score.
    pub contribution: f64,
}

/// The parts of a score, the largest contribution first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reasons {
    /// The parts; those that add nothing are left out.
    pub parts: Vec<Part>,
}

impl Reasons {
    fn new(mut parts: Vec<Part>) -> Self {
        parts.retain(|part| part.contribution != 0.0);
        parts.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
        Self { parts }
    }

    /// The sum of the contributions.
    pub fn score(&self) -> f64 {
        self.parts.iter().map(|part| part.contribution).sum()
    }

    /// Each part's share of the score, which add up to 1; `None` when the score is 0. A share is
    /// negative where a part speaks against the rest.
    pub fn shares(&self) -> Option<Vec<f64>> {
        let score = self.score();
        let shares = self.parts.iter().map(|part| part.contribution / score);
        (score != 0.0 && score.is_finite()).then(|| shares.collect())
    }
}

impl Model {
    /// Why the user and the item have their score; `None` when either is out of range or the model
    /// is no recommender.
    pub fn explain(&self, user: u32, item: u32) -> Option<Reasons> {
        let recommender = self.recommender()?;
        let score = recommender.score(user, item)?;
        let parts = match self {
            Self::Als(model) => of_factors(model, user, item),
            Self::Item(model) => of_items(model, user, item),
            Self::Popularity(_) => vec![alone(Term::Popularity, score)],
            Self::Hybrid(model) => of_blend(model, user, item),
            Self::KMeans(_)
            | Self::Pca(_)
            | Self::IsolationForest(_)
            | Self::Outlier(_)
            | Self::Boosted(_)
            | Self::Entities(_) => return None,
        };
        Some(Reasons::new(parts))
    }

    /// The name of a part of a score in a `term` column: a signal's with its own name.
    pub fn term_name(&self, term: Term) -> Cow<'static, str> {
        let signal = match (self, term) {
            (Self::Hybrid(blend), Term::Signal(member)) => {
                blend.members().nth(member).and_then(|member| member.base.signal())
            }
            _ => None,
        };
        match signal {
            Some(signal) => format!("{} {}", term.name(), signal.name()).into(),
            None => term.name().into(),
        }
    }
}

/// All that a score is made of.
fn alone(term: Term, score: f32) -> Part {
    Part { term, weight: score, contribution: f64::from(score) }
}

fn of_blend(model: &HybridModel, user: u32, item: u32) -> Vec<Part> {
    let mut blended: Vec<Part> = vec![];
    let members = model.members().enumerate();
    for (at, member) in members.filter(|(_, member)| member.weight.share > 0.0) {
        let factor = f64::from(member.weight.factor());
        let one = |term| -> Vec<Part> {
            let score = member.base.recommender().score(user, item);
            score.map(|score| alone(term, score)).into_iter().collect()
        };
        let parts = match &member.base {
            Base::Als(model) => of_factors(model, user, item),
            Base::Item(model) => of_items(model, user, item),
            Base::Popularity(_) => one(Term::Popularity),
            Base::Signal(_) => one(Term::Signal(at)),
        };
        for part in parts {
            let contribution = factor * part.contribution;
            match blended.iter_mut().find(|other| other.term == part.term) {
                Some(same) => same.contribution += contribution,
                None => blended.push(Part { contribution, ..part }),
            }
        }
    }
    blended
}

fn of_items(model: &ItemModel, user: u32, item: u32) -> Vec<Part> {
    let Some(found) = model.explain(user, item) else { return vec![] };
    let (own, weights) = model.seen().row(user as usize);
    let part = |(&because, &contribution): (&u32, &f32)| Part {
        term: Term::Interaction(because),
        weight: own.binary_search(&because).map_or(0.0, |at| weights[at]),
        contribution: f64::from(contribution),
    };
    found.items.iter().zip(&found.contributions).map(part).collect()
}

fn of_factors(model: &AlsModel, user: u32, item: u32) -> Vec<Part> {
    let (items, weights) = model.seen().row(user as usize);
    let side = model.item_side();
    let found = side.contributions(items, weights, item);
    let mut parts: Vec<Part> = items
        .iter()
        .zip(weights)
        .zip(&found.of_items)
        .map(|((&because, &weight), &contribution)| Part {
            term: Term::Interaction(because),
            weight,
            contribution,
        })
        .collect();
    if let Some(&bias) = model.item_bias().get(item as usize) {
        for (term, contribution) in [
            (Term::Mean, f64::from(model.global_mean())),
            (Term::UserBias, found.user_bias),
            (Term::ItemBias, f64::from(bias)),
        ] {
            parts.push(Part { term, weight: contribution as f32, contribution });
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use arrow::array::{ArrayRef, Int64Array};

    use super::super::als::{AlsOptions, Feedback, train};
    use super::super::{
        Duplicates, IdIndex, ItemParts, ModelParts, PopularityModel, PopularityParts, Similarity,
        Triplets,
    };
    use super::*;
    use crate::model::random::mix;

    const USERS: u32 = 30;
    const ITEMS: u32 = 20;

    fn ids(column: &str, count: u32) -> IdIndex {
        let values: ArrayRef = Arc::new((0..i64::from(count)).collect::<Int64Array>());
        IdIndex::from_values(column, values).unwrap()
    }

    fn seen(negative: bool) -> super::super::Csr {
        let mut triplets = Triplets::default();
        for user in 0..USERS - 1 {
            for step in 0..6 {
                let draw = mix(u64::from(user * 100 + step));
                let item = (draw % u64::from(ITEMS / 2)) as u32 * 2 + user % 2;
                let sign = if negative && step == 0 { -1.0 } else { 1.0 };
                triplets.push(user, item, sign * (1.0 + (draw >> 62) as f32), "w").unwrap();
            }
        }
        triplets.build(USERS as usize, ITEMS as usize, Duplicates::Mean).0
    }

    fn als(feedback: Feedback) -> AlsModel {
        let seen = seen(feedback == Feedback::Implicit);
        let options = AlsOptions {
            feedback,
            num_factors: 5,
            max_iterations: 6,
            seed: 3,
            ..AlsOptions::default()
        };
        let factors = train(&seen, &options, &mut |_| {}, &AtomicBool::new(false)).unwrap();
        let parts = ModelParts {
            users: ids("user_id", USERS),
            items: ids("item_id", ITEMS),
            factors,
            seen,
            options,
        };
        AlsModel::from_parts(parts).unwrap()
    }

    #[test]
    fn contributions_of_factors_add_up_to_the_folded_in_score_and_shares_to_one() {
        for feedback in [Feedback::Implicit, Feedback::Explicit] {
            let model = als(feedback);
            let wrapped = Model::from(als(feedback));
            for user in 0..USERS - 1 {
                let (items, weights) = model.seen().row(user as usize);
                let vector = model.fold_in(items, weights).unwrap();
                for item in 0..ITEMS {
                    let y = &model.item_factors()[item as usize * 5..][..5];
                    let product: f64 = y
                        .iter()
                        .zip(&vector.factors)
                        .map(|(&y, &x)| f64::from(y) * f64::from(x))
                        .sum();
                    let bias = model.item_bias().get(item as usize).copied().unwrap_or(0.0);
                    let constant = model.global_mean() + vector.bias + bias;
                    let reasons = wrapped.explain(user, item).unwrap();
                    let expected = product + f64::from(constant);
                    assert!((reasons.score() - expected).abs() < 1e-5, "{expected} {reasons:?}");
                    let sum: f64 = reasons.shares().unwrap().iter().sum();
                    assert!((sum - 1.0).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn biases_are_parts_of_their_own_and_unwanted_items_add_nothing() {
        let reasons = Model::from(als(Feedback::Explicit)).explain(0, 3).unwrap();
        let has = |term| reasons.parts.iter().any(|part| part.term == term);
        assert!(has(Term::Mean) && has(Term::UserBias) && has(Term::ItemBias));
        let model = als(Feedback::Implicit);
        let (items, weights) = model.seen().row(0);
        let unwanted = items.iter().zip(weights).find(|(_, weight)| **weight < 0.0);
        let unwanted = *unwanted.unwrap().0;
        let reasons = Model::from(als(Feedback::Implicit)).explain(0, 4).unwrap();
        assert!(reasons.parts.iter().all(|part| part.term != Term::Interaction(unwanted)));
        assert!(
            reasons
                .parts
                .iter()
                .all(|part| items.iter().any(|&i| { part.term == Term::Interaction(i) }))
        );
    }

    #[test]
    fn a_user_without_interactions_has_no_reasons_and_an_unknown_one_none_at_all() {
        let model = Model::from(als(Feedback::Implicit));
        assert_eq!(model.explain(USERS - 1, 0), Some(Reasons::default()));
        assert_eq!(model.explain(USERS - 1, 0).unwrap().shares(), None);
        assert_eq!((model.explain(USERS, 0), model.explain(0, ITEMS)), (None, None));
    }

    #[test]
    fn item_weights_and_popularity_explain_their_scores() {
        let seen = seen(false);
        let options = super::super::item_knn::ItemKnnOptions::default();
        let knn =
            super::super::item_knn::train(&seen, &options, &mut |_| {}, &AtomicBool::new(false));
        let parts = ItemParts {
            users: ids("user_id", USERS),
            items: ids("item_id", ITEMS),
            seen: seen.clone(),
            similarity: Similarity::Sparse(knn.unwrap()),
        };
        let model = Model::from(ItemModel::from_parts(parts).unwrap());
        let score = model.recommender().unwrap().score(2, 4).unwrap();
        let reasons = model.explain(2, 4).unwrap();
        assert!((reasons.score() - f64::from(score)).abs() < 1e-5 && score > 0.0);
        assert!(reasons.parts.is_sorted_by(|a, b| a.contribution >= b.contribution));
        assert!(reasons.parts.iter().all(|part| part.weight >= 1.0));
        let parts = PopularityParts {
            users: ids("user_id", USERS),
            items: ids("item_id", ITEMS),
            seen,
            weights: (0..ITEMS).map(|item| item as f32).collect(),
            segments: None,
        };
        let model = Model::from(PopularityModel::from_parts(parts).unwrap());
        let reasons = model.explain(0, 7).unwrap();
        let part = Part { term: Term::Popularity, weight: 7.0, contribution: 7.0 };
        assert_eq!((reasons.parts.as_slice(), reasons.shares()), (&[part][..], Some(vec![1.0])));
        assert_eq!(part.term.name(), "popularity");
    }
}
