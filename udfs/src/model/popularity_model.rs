//! Popularity as a model of its own: the same list for everyone, or one for each segment.
//!
//! An item's weight is what the caller counted, usually Σ over its interactions of
//! value · ½^(age/half-life), so that what was popular long ago fades. A segment's ranking puts
//! items by their weight in the segment, equal ones by their weight overall, then by code: items
//! that nobody in the segment had follow in overall order. Who is in no segment gets the overall
//! ranking.

use std::sync::atomic::{AtomicBool, Ordering};

use super::error::ModelError;
use super::ids::IdIndex;
use super::recommender::{Basket, Choice, HeldOut, RecommendRequest, Recommender, Source, Whose};
use super::sparse::Csr;
use super::topk::Best;

/// A user in no segment.
pub const NO_SEGMENT: u32 = u32::MAX;

/// What a popularity model is made of and stored as.
#[derive(Debug, Clone)]
pub struct PopularityParts {
    /// Ids of users.
    pub users: IdIndex,
    /// Ids of items.
    pub items: IdIndex,
    /// Interactions, users × items: what lists leave out.
    pub seen: Csr,
    /// A finite weight for each item.
    pub weights: Vec<f32>,
    /// Rankings of segments, if any.
    pub segments: Option<Segments>,
}

/// Who belongs to which segment and what counts there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Segments {
    /// Segment of each user, or [`NO_SEGMENT`].
    pub of_user: Vec<u32>,
    /// For each segment a finite weight for each item.
    pub weights: Vec<Vec<f32>>,
}

/// Rankings ready to answer.
#[derive(Debug)]
pub struct PopularityModel {
    parts: PopularityParts,
    overall: Vec<u32>,
    rankings: Vec<Vec<u32>>,
}

impl PopularityModel {
    /// Checks that the parts fit together and ranks the items.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] naming what does not fit.
    pub fn from_parts(parts: PopularityParts) -> Result<Self, ModelError> {
        Self::ranked(parts, &AtomicBool::new(false))
    }

    /// The same; with thousands of segments it takes a while, and the flag ends it.
    ///
    /// # Errors
    /// Those of [`Self::from_parts`], and [`ModelError::Cancelled`] soon after the flag was set.
    pub fn ranked(parts: PopularityParts, cancel: &AtomicBool) -> Result<Self, ModelError> {
        let fail = |why: &str| Err(ModelError::Inconsistent(why.to_owned()));
        let items = parts.items.len();
        if parts.seen.rows() != parts.users.len() || parts.seen.columns() != items {
            return fail("interactions and ids differ in number");
        }
        let empty = Segments::default();
        let segments = parts.segments.as_ref().unwrap_or(&empty);
        let fits =
            |weights: &Vec<f32>| weights.len() == items && weights.iter().all(|w| w.is_finite());
        if !fits(&parts.weights) || !segments.weights.iter().all(fits) {
            return fail("an item has no finite weight");
        }
        if parts.segments.is_some() && segments.of_user.len() != parts.users.len() {
            return fail("segments and users differ in number");
        }
        let known =
            |&segment: &u32| segment == NO_SEGMENT || (segment as usize) < segments.weights.len();
        if !segments.of_user.iter().all(known) {
            return fail("a user is in a segment without ranking");
        }
        let ranked = |weights: &[f32]| {
            if cancel.load(Ordering::Relaxed) {
                return Err(ModelError::Cancelled);
            }
            let mut order: Vec<u32> = (0..items as u32).collect();
            let key = |item: u32| (weights[item as usize], parts.weights[item as usize]);
            order.sort_by(|&a, &b| {
                let (a, b) = (key(a), key(b));
                b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
            });
            Ok(order)
        };
        let overall = ranked(&parts.weights)?;
        let rankings: Result<_, _> = segments.weights.iter().map(|of| ranked(of)).collect();
        Ok(Self { rankings: rankings?, parts, overall })
    }

    /// A weight for each item.
    pub fn weights(&self) -> &[f32] {
        &self.parts.weights
    }

    /// Rankings of segments, if any.
    pub fn segments(&self) -> Option<&Segments> {
        self.parts.segments.as_ref()
    }

    /// The ranking of a user's segment, with its weights.
    fn ranking(&self, user: Option<u32>) -> (&[u32], &[f32]) {
        let segment = || {
            let segments = self.parts.segments.as_ref()?;
            let segment = *segments.of_user.get(user? as usize)? as usize;
            Some((self.rankings.get(segment)?.as_slice(), segments.weights[segment].as_slice()))
        };
        segment().unwrap_or((&self.overall, &self.parts.weights))
    }

    fn choose(&self, user: Option<u32>, top_k: usize, skip: impl Fn(u32) -> bool) -> Choice {
        let (order, weights) = self.ranking(user);
        let kept = order.iter().copied().filter(|&item| !skip(item)).take(top_k);
        let (items, scores) = kept.map(|item| (item, weights[item as usize])).unzip();
        Choice { items, scores, source: Source::Popularity }
    }
}

impl Recommender for PopularityModel {
    fn user_ids(&self) -> &IdIndex {
        &self.parts.users
    }

    fn item_ids(&self) -> &IdIndex {
        &self.parts.items
    }

    fn seen(&self) -> &Csr {
        &self.parts.seen
    }

    fn memory_bytes(&self) -> usize {
        let rankings = 2 * (1 + self.rankings.len()) * self.parts.items.len() * size_of::<u32>();
        rankings
            + self.parts.users.len() * size_of::<u32>()
            + self.parts.seen.memory_bytes()
            + 2 * (self.parts.users.memory_bytes() + self.parts.items.memory_bytes())
    }

    fn source(&self) -> Source {
        Source::Popularity
    }

    fn score(&self, user: u32, item: u32) -> Option<f32> {
        if user as usize >= self.parts.users.len() {
            return None;
        }
        self.ranking(Some(user)).1.get(item as usize).copied()
    }

    fn recommend(&self, users: &[Option<u32>], request: &RecommendRequest<'_>) -> Vec<Choice> {
        let skips = request.skips(self.seen());
        let choice =
            |&user: &Option<u32>| self.choose(user, request.top_k, |item| skips(user, item));
        users.iter().map(choice).collect()
    }

    /// The items are left out; who is in a segment stays there.
    fn recommend_baskets(
        &self,
        baskets: &[Basket],
        request: &RecommendRequest<'_>,
    ) -> Result<Vec<Choice>, ModelError> {
        Basket::check(baskets)?;
        let skips = request.skips_of(baskets, self.parts.items.len());
        let choice = |(at, basket): (usize, &Basket)| {
            self.choose(basket.user, request.top_k, |item| skips(at, item))
        };
        Ok(baskets.iter().enumerate().map(choice).collect())
    }

    /// The weights are the caller's: they count test interactions unless it left them out.
    fn recommend_held_out(
        &self,
        users: &[u32],
        held_out: &HeldOut<'_>,
        top_k: usize,
    ) -> Vec<Choice> {
        let choice =
            |&user: &u32| self.choose(Some(user), top_k, |item| held_out.is_known(user, item));
        users.iter().map(choice).collect()
    }

    fn scores(&self, whose: Whose<'_>, items: &[u32]) -> Vec<f32> {
        let users: Vec<Option<u32>> = match whose {
            Whose::Users(users) | Whose::HeldOut(users, _) => {
                users.iter().copied().map(Some).collect()
            }
            Whose::Baskets(baskets) => baskets.iter().map(|basket| basket.user).collect(),
        };
        let scores = |&user: &Option<u32>| {
            let weights = self.ranking(user).1;
            items.iter().map(|&item| weights.get(item as usize).copied().unwrap_or(0.0))
        };
        users.iter().flat_map(scores).collect()
    }

    /// Popularity knows no similarity: every answer is empty.
    fn similar_items(&self, items: &[u32], _top_k: usize) -> Vec<Best> {
        vec![Best::default(); items.len()]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::super::evaluation::rankings;
    use super::*;

    fn ids(column: &str, count: i64) -> IdIndex {
        let values: ArrayRef = Arc::new((0..count).collect::<Int64Array>());
        IdIndex::from_values(column, values).unwrap()
    }

    fn parts() -> PopularityParts {
        PopularityParts {
            users: ids("user_id", 3),
            items: ids("item_id", 4),
            seen: Csr::new(vec![0, 1, 2, 3], vec![2, 2, 3], vec![1.0; 3], 4).unwrap(),
            weights: vec![1.0, 4.0, 5.0, 4.0],
            segments: Some(Segments {
                of_user: vec![0, NO_SEGMENT, 1],
                weights: vec![vec![2.0, 0.0, 1.0, 0.0], vec![0.0; 4]],
            }),
        }
    }

    const REQUEST: RecommendRequest<'static> =
        RecommendRequest { top_k: 4, exclude_seen: false, include: None, exclude: None };

    #[test]
    fn a_segment_has_its_ranking_and_the_rest_follows_in_overall_order() {
        let model = PopularityModel::from_parts(parts()).unwrap();
        let lists = model.recommend(&[Some(0), Some(1), Some(2), None, Some(9)], &REQUEST);
        assert_eq!(lists[0].items, [0, 2, 1, 3]);
        assert_eq!(lists[0].scores, [2.0, 1.0, 0.0, 0.0]);
        assert!(lists[1..].iter().all(|list| list.items == [2, 1, 3, 0]));
        assert_eq!(lists[4].scores, [5.0, 4.0, 4.0, 1.0]);
        assert_eq!((model.score(0, 0), model.score(1, 0)), (Some(2.0), Some(1.0)));
        assert_eq!((model.score(9, 0), model.score(0, 9)), (None, None));
        let request = RecommendRequest { exclude_seen: true, exclude: Some(&[1]), ..REQUEST };
        assert_eq!(model.recommend(&[Some(0), Some(1)], &request)[0].items, [0, 3]);
        assert_eq!(model.similar_items(&[0], 3), [Best::default()]);
    }

    #[test]
    fn metrics_are_those_of_the_ranking() {
        let model = PopularityModel::from_parts(parts()).unwrap();
        let test = Csr::new(vec![0, 0, 1, 1], vec![1], vec![1.0], 4).unwrap();
        let [ours, _] = rankings(&model, &test, 1, &AtomicBool::new(false)).unwrap();
        assert_eq!(ours.values()[0], ("recall@1".to_owned(), 1.0));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let build = |change: &dyn Fn(&mut PopularityParts)| {
            let mut parts = parts();
            change(&mut parts);
            PopularityModel::from_parts(parts).map(|_| ())
        };
        assert!(build(&|_| {}).is_ok());
        assert!(build(&|p| p.segments = None).is_ok());
        assert!(build(&|p| p.weights[0] = f32::NAN).is_err());
        assert!(build(&|p| p.weights.truncate(1)).is_err());
        assert!(build(&|p| p.seen = Csr::empty(1, 1)).is_err());
        assert!(build(&|p| p.segments.as_mut().unwrap().of_user[0] = 2).is_err());
        assert!(build(&|p| p.segments.as_mut().unwrap().of_user.truncate(1)).is_err());
    }

    #[test]
    fn a_ranking_stops_when_it_is_told_to() {
        let stopped = PopularityModel::ranked(parts(), &AtomicBool::new(true));
        assert!(matches!(stopped, Err(ModelError::Cancelled)));
    }
}
