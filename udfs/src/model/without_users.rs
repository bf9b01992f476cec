//! A recommender without some of its users: their ids, factors and interactions are gone.
//!
//! What was learned of users one by one is removed exactly. What was learned of all of them
//! together is corrected where it can be: a factorization's items that the users have had are
//! solved anew against the users who stay (the half step of training, as for new items), which
//! leaves what the other items' factors owe to them in passing. Item-item weights and popularity
//! are sums over many and stay as they are. Only training anew forgets exactly.

use std::collections::BTreeSet;

use arrow::array::BooleanArray;
use arrow::compute::filter;
use rayon::prelude::*;

use super::als::AlsFactors;
use super::als_model::{AlsModel, ModelParts};
use super::error::ModelError;
use super::foldin::UserVector;
use super::hybrid::{Base, HybridModel, Member, Signal};
use super::ids::IdIndex;
use super::item_model::{ItemModel, ItemParts};
use super::popularity_model::{PopularityModel, PopularityParts, Segments};
use super::recommender::Recommender;
use super::sparse::Csr;
use super::trained::Model;

impl Model {
    /// The model without these users, by code; `None` where it is no recommender, or nobody would
    /// be left.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] when what is left does not fit together.
    pub fn without_users(&self, codes: &[u32]) -> Result<Option<Self>, ModelError> {
        let Some(recommender) = self.recommender() else { return Ok(None) };
        let stay = Stay::of(recommender, codes);
        if stay.users.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self {
            Self::Als(model) => stay.factorization(model)?.into(),
            Self::Item(model) => stay.items(model)?.into(),
            Self::Popularity(model) => stay.popularity(model)?.into(),
            Self::Hybrid(model) => stay.blend(model)?.into(),
            _ => return Ok(None),
        }))
    }
}

/// The users who stay, and the items that the others have had.
struct Stay {
    users: Vec<usize>,
    touched: Vec<u32>,
}

impl Stay {
    fn of(model: &dyn Recommender, gone: &[u32]) -> Self {
        let gone: BTreeSet<usize> = gone.iter().map(|code| *code as usize).collect();
        let had = gone.iter().flat_map(|user| model.seen().row(*user).0.iter().copied());
        let touched: BTreeSet<u32> = had.collect();
        let users = (0..model.user_ids().len()).filter(|user| !gone.contains(user)).collect();
        Self { users, touched: touched.into_iter().collect() }
    }

    fn ids(&self, ids: &IdIndex) -> Result<IdIndex, ModelError> {
        let mut stays = vec![false; ids.len()];
        for user in &self.users {
            if let Some(flag) = stays.get_mut(*user) {
                *flag = true;
            }
        }
        let kept = filter(&ids.values(), &BooleanArray::from(stays))?;
        IdIndex::from_values(ids.column(), kept)
    }

    fn seen(&self, seen: &Csr) -> Csr {
        let lengths = self.users.iter().map(|user| seen.row(*user).0.len());
        Csr::from_rows(lengths, seen.columns(), |row, columns, values| {
            let of = self.users.get(row).copied().unwrap_or(seen.rows());
            let (own, weights) = seen.row(of);
            columns.copy_from_slice(own);
            values.copy_from_slice(weights);
        })
    }

    fn rows(&self, values: &[f32], width: usize) -> Vec<f32> {
        let row = |user: &usize| values.get(user * width..(user + 1) * width).unwrap_or_default();
        self.users.iter().flat_map(row).copied().collect()
    }

    fn factorization(&self, model: &AlsModel) -> Result<AlsModel, ModelError> {
        let before = model.factors();
        let user_bias = match before.user_bias.as_slice() {
            [] => vec![],
            bias => self.rows(bias, 1),
        };
        let factors = AlsFactors {
            user_factors: self.rows(&before.user_factors, model.num_factors()),
            user_bias,
            ..before.clone()
        };
        let parts = ModelParts {
            users: self.ids(model.user_ids())?,
            items: model.item_ids().clone(),
            factors,
            seen: self.seen(model.seen()),
            options: model.options().clone(),
        };
        let kept = AlsModel::from_parts(parts.clone())?;
        let factors = self.corrected(&kept);
        AlsModel::from_parts(ModelParts { factors, ..parts })
    }

    /// The factors with those of the touched items as the half step makes them.
    fn corrected(&self, model: &AlsModel) -> AlsFactors {
        let (side, by_item) = (model.user_side(), model.seen().transpose());
        let solve = |item: &u32| {
            let (users, weights) = by_item.row(*item as usize);
            side.fold_in(users, weights, None)
        };
        let solved: Vec<UserVector> = self.touched.par_iter().map(solve).collect();
        let (mut factors, size) = (model.factors().clone(), model.num_factors());
        for (item, vector) in self.touched.iter().zip(solved) {
            let item = *item as usize;
            let range = item * size..(item + 1) * size;
            if let Some(row) = factors.item_factors.get_mut(range) {
                row.iter_mut().zip(vector.factors).for_each(|(to, value)| *to = value);
            }
            if let Some(bias) = factors.item_bias.get_mut(item) {
                *bias = vector.bias;
            }
        }
        factors
    }

    fn items(&self, model: &ItemModel) -> Result<ItemModel, ModelError> {
        ItemModel::from_parts(ItemParts {
            users: self.ids(model.user_ids())?,
            items: model.item_ids().clone(),
            seen: self.seen(model.seen()),
            similarity: model.similarity().clone(),
        })
    }

    fn popularity(&self, model: &PopularityModel) -> Result<PopularityModel, ModelError> {
        let segments = model.segments().map(|segments| Segments {
            of_user: {
                let of = |user: &usize| segments.of_user.get(*user).copied();
                self.users.iter().filter_map(of).collect()
            },
            weights: segments.weights.clone(),
        });
        PopularityModel::from_parts(PopularityParts {
            users: self.ids(model.user_ids())?,
            items: model.item_ids().clone(),
            seen: self.seen(model.seen()),
            weights: model.weights().to_vec(),
            segments,
        })
    }

    fn blend(&self, model: &HybridModel) -> Result<HybridModel, ModelError> {
        let member = |member: &Member| -> Result<Member, ModelError> {
            let base = match &member.base {
                Base::Als(als) => Base::Als(Box::new(self.factorization(als)?)),
                Base::Item(items) => Base::Item(self.items(items)?),
                Base::Popularity(popular) => Base::Popularity(self.popularity(popular)?),
                Base::Signal(signal) => self.signal(signal, member.base.recommender())?,
            };
            Ok(Member { base, weight: member.weight })
        };
        HybridModel::from_members(model.members().map(member).collect::<Result<_, _>>()?)
    }

    /// A signal's numbers are of items alone.
    fn signal(&self, signal: &Signal, of: &dyn Recommender) -> Result<Base, ModelError> {
        let scores = PopularityModel::from_parts(PopularityParts {
            users: self.ids(of.user_ids())?,
            items: of.item_ids().clone(),
            seen: self.seen(of.seen()),
            weights: signal.values().to_vec(),
            segments: None,
        })?;
        Ok(Base::Signal(Signal::new(signal.name().to_owned(), scores)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, StringArray};

    use super::*;
    use crate::model::Similarity;
    use crate::model::als::AlsOptions;

    fn ids(column: &str, names: &[&str]) -> IdIndex {
        let values: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
        IdIndex::from_values(column, values).unwrap()
    }

    /// Ann has had x and y, Bob y and z, Eve x alone.
    fn seen() -> Csr {
        Csr::new(vec![0, 2, 4, 5], vec![0, 1, 1, 2, 0], vec![1.0; 5], 3).unwrap()
    }

    fn factorization() -> AlsModel {
        let factors = AlsFactors {
            user_factors: vec![1.0, 0.0, 0.0, 1.0, 0.5, 0.5],
            item_factors: vec![0.9, 0.1, 0.5, 0.5, 0.1, 0.9],
            user_bias: vec![],
            item_bias: vec![],
            global_mean: 0.0,
            losses: vec![1.0],
        };
        let options = AlsOptions { num_factors: 2, ..AlsOptions::default() };
        AlsModel::from_parts(ModelParts {
            users: ids("user", &["ann", "bob", "eve"]),
            items: ids("item", &["x", "y", "z"]),
            factors,
            seen: seen(),
            options,
        })
        .unwrap()
    }

    fn names(model: &Model) -> Vec<String> {
        let values = model.recommender().unwrap().user_ids().values();
        values.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    }

    #[test]
    fn a_factorization_loses_the_user_and_its_items_are_solved_again() {
        let model = Model::from(factorization());
        let left = model.without_users(&[0]).unwrap().unwrap();
        assert_eq!(names(&left), ["bob", "eve"]);
        let (before, after) = (model.als().unwrap(), left.als().unwrap());
        assert_eq!(after.user_factors(), [0.0, 1.0, 0.5, 0.5]);
        assert_eq!(after.seen().row(0).0, [1, 2]);
        assert_eq!(after.seen().row(1).0, [0]);
        // z was Bob's alone: nothing of Ann is in it. The others are what the half step makes.
        assert_eq!(after.item_factors()[4..], before.item_factors()[4..]);
        let by_item = after.seen().transpose();
        for item in 0..2 {
            let (users, weights) = by_item.row(item);
            let expected = after.user_side().fold_in(users, weights, None);
            assert_eq!(after.item_factors()[2 * item..2 * item + 2], expected.factors[..]);
        }
    }

    #[test]
    fn other_recommenders_lose_the_user_too() {
        let parts = ItemParts {
            users: ids("user", &["ann", "bob", "eve"]),
            items: ids("item", &["x", "y", "z"]),
            seen: seen(),
            similarity: Similarity::Dense(vec![0.0; 9]),
        };
        let model = Model::from(ItemModel::from_parts(parts).unwrap());
        let left = model.without_users(&[1, 2]).unwrap().unwrap();
        assert_eq!(names(&left), ["ann"]);
        assert_eq!(left.recommender().unwrap().seen().cells(), 2);
        let parts = PopularityParts {
            users: ids("user", &["ann", "bob", "eve"]),
            items: ids("item", &["x", "y", "z"]),
            seen: seen(),
            weights: vec![2.0, 2.0, 1.0],
            segments: Some(Segments { of_user: vec![0, 1, 0], weights: vec![vec![1.0; 3]; 2] }),
        };
        let model = Model::from(PopularityModel::from_parts(parts).unwrap());
        let left = model.without_users(&[0]).unwrap().unwrap();
        let Model::Popularity(popular) = &left else { panic!("another type") };
        assert_eq!(popular.segments().unwrap().of_user, [1, 0]);
        assert!(model.without_users(&[0, 1, 2]).unwrap().is_none());
    }
}
