//! A trained model of any type: what the catalog stores and functions are bound to.

use std::borrow::Cow;

use super::als_model::AlsModel;
use super::boosted::Trees;
use super::entity_resolution::model::EntityModel;
use super::hybrid::HybridModel;
use super::isolation_forest::IsolationForest;
use super::item_model::ItemModel;
use super::kmeans::KMeansModel;
use super::outlier::OutlierModel;
use super::pca::PcaModel;
use super::popularity_model::PopularityModel;
use super::prepared::Prepared;
use super::recommender::Recommender;
use super::row_cosine::RowCosines;
use super::topk::Best;

/// A trained model.
#[derive(Debug)]
pub enum Model {
    /// A matrix factorization.
    Als(Box<AlsModel>),
    /// Item-item weights: neighbourhoods or EASE.
    Item(ItemModel),
    /// What is popular.
    Popularity(PopularityModel),
    /// A blend of recommenders.
    Hybrid(Box<HybridModel>),
    /// Clusters of rows of features.
    KMeans(Prepared<KMeansModel>),
    /// Principal components of rows of features.
    Pca(Prepared<PcaModel>),
    /// Trees that set rows of features apart.
    IsolationForest(Prepared<IsolationForest>),
    /// What is usual in each column of features.
    Outlier(Prepared<OutlierModel>),
    /// Boosted trees on rows of features.
    Boosted(Box<Prepared<Trees>>),
    /// Which records are of one entity.
    Entities(Box<EntityModel>),
}

impl From<AlsModel> for Model {
    fn from(model: AlsModel) -> Self {
        Self::Als(Box::new(model))
    }
}

impl From<ItemModel> for Model {
    fn from(model: ItemModel) -> Self {
        Self::Item(model)
    }
}

impl From<PopularityModel> for Model {
    fn from(model: PopularityModel) -> Self {
        Self::Popularity(model)
    }
}

impl From<HybridModel> for Model {
    fn from(model: HybridModel) -> Self {
        Self::Hybrid(Box::new(model))
    }
}

impl From<Prepared<KMeansModel>> for Model {
    fn from(model: Prepared<KMeansModel>) -> Self {
        Self::KMeans(model)
    }
}

impl From<Prepared<PcaModel>> for Model {
    fn from(model: Prepared<PcaModel>) -> Self {
        Self::Pca(model)
    }
}

impl From<Prepared<IsolationForest>> for Model {
    fn from(model: Prepared<IsolationForest>) -> Self {
        Self::IsolationForest(model)
    }
}

impl From<Prepared<OutlierModel>> for Model {
    fn from(model: Prepared<OutlierModel>) -> Self {
        Self::Outlier(model)
    }
}

impl From<Prepared<Trees>> for Model {
    fn from(model: Prepared<Trees>) -> Self {
        Self::Boosted(Box::new(model))
    }
}

impl From<EntityModel> for Model {
    fn from(model: EntityModel) -> Self {
        Self::Entities(Box::new(model))
    }
}

impl Model {
    /// The `model_type` of CREATE MODEL.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Als(_) => "matrix_factorization",
            Self::Item(model) => model.similarity().type_name(),
            Self::Popularity(_) => "popularity",
            Self::Hybrid(_) => "hybrid",
            Self::KMeans(_) => "kmeans",
            Self::Pca(_) => "pca",
            Self::IsolationForest(_) => "isolation_forest",
            Self::Outlier(_) => "outlier",
            Self::Boosted(model) => model.learned().task.type_name(),
            Self::Entities(_) => "entity_resolution",
        }
    }

    /// The model as a recommender; `None` when it recommends nothing.
    pub fn recommender(&self) -> Option<&dyn Recommender> {
        match self {
            Self::Als(model) => Some(model.as_ref()),
            Self::Item(model) => Some(model),
            Self::Popularity(model) => Some(model),
            Self::Hybrid(model) => Some(model.as_ref()),
            Self::KMeans(_)
            | Self::Pca(_)
            | Self::IsolationForest(_)
            | Self::Outlier(_)
            | Self::Boosted(_)
            | Self::Entities(_) => None,
        }
    }

    /// The factorization, when it is one.
    pub fn als(&self) -> Option<&AlsModel> {
        match self {
            Self::Als(model) => Some(model),
            _ => None,
        }
    }

    /// The entities, when it is about them.
    pub fn entities(&self) -> Option<&EntityModel> {
        match self {
            Self::Entities(model) => Some(model),
            _ => None,
        }
    }

    /// Bytes on the heap, with what look-ups add later.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Als(model) => model.memory_bytes(),
            Self::Item(model) => model.memory_bytes(),
            Self::Popularity(model) => Recommender::memory_bytes(model),
            Self::Hybrid(model) => Recommender::memory_bytes(model.as_ref()),
            Self::KMeans(model) => model.memory_bytes(),
            Self::Pca(model) => model.memory_bytes(),
            Self::IsolationForest(model) => model.memory_bytes(),
            Self::Outlier(model) => model.memory_bytes(),
            Self::Boosted(model) => model.memory_bytes(),
            Self::Entities(model) => model.memory_bytes(),
        }
    }

    /// The users most similar to each given one, without itself: by the cosine of their factors,
    /// or, where a model has none, of their interactions. Nobody where it knows no users.
    pub fn similar_users(&self, users: &[u32], top_k: usize) -> Vec<Best> {
        match (self, self.recommender()) {
            (Self::Als(model), _) => model.similar_users(users, top_k),
            (_, Some(model)) => RowCosines::new(Cow::Borrowed(model.seen())).nearest(users, top_k),
            (_, None) => vec![Best::default(); users.len()],
        }
    }
}

impl Model {
    /// What [`Model::item_cosine`] compares where a model has no factors: the items' interactions.
    pub fn item_rows(&self) -> Option<RowCosines<'static>> {
        match (self.als(), self.recommender()) {
            (None, Some(recommender)) => {
                Some(RowCosines::new(Cow::Owned(recommender.seen().transpose())))
            }
            _ => None,
        }
    }

    /// How alike two items are, −1 to 1: the cosine of their factors, or of their `rows`.
    pub fn item_cosine(&self, rows: Option<&RowCosines<'_>>, a: u32, b: u32) -> f32 {
        match (self.als(), rows) {
            (Some(als), _) => {
                let factors = |item| {
                    let start = item as usize * als.num_factors();
                    als.item_factors().get(start..start + als.num_factors()).unwrap_or_default()
                };
                cosine(factors(a), factors(b))
            }
            (None, Some(rows)) => rows.pair(a, b),
            (None, None) => 0.0,
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let product = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
    };
    let lengths = (product(a, a) * product(b, b)).sqrt();
    if lengths > 0.0 { (product(a, b) / lengths) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::super::{
        Basket, Csr, IdIndex, ItemParts, PopularityParts, RecommendRequest, Similarity, Source,
    };
    use super::*;

    fn ids(column: &str, count: i64) -> IdIndex {
        let values: ArrayRef = Arc::new((0..count).collect::<Int64Array>());
        IdIndex::from_values(column, values).unwrap()
    }

    fn seen() -> Csr {
        Csr::new(vec![0, 2, 4, 5], vec![0, 1, 0, 1, 2], vec![1.0; 5], 3).unwrap()
    }

    fn models() -> [Model; 2] {
        let similarity = Csr::new(vec![0, 1, 2, 3], vec![1, 0, 2], vec![0.5; 3], 3).unwrap();
        let parts = ItemParts {
            users: ids("user_id", 3),
            items: ids("item_id", 3),
            seen: seen(),
            similarity: Similarity::Sparse(similarity),
        };
        let popular = PopularityParts {
            users: ids("user_id", 3),
            items: ids("item_id", 3),
            seen: seen(),
            weights: vec![2.0, 2.0, 1.0],
            segments: None,
        };
        [
            ItemModel::from_parts(parts).unwrap().into(),
            PopularityModel::from_parts(popular).unwrap().into(),
        ]
    }

    #[test]
    fn types_are_named_and_all_of_them_recommend() {
        let [item, popular] = models();
        assert_eq!((item.type_name(), popular.type_name()), ("item_knn", "popularity"));
        for model in [&item, &popular] {
            assert!(model.recommender().is_some() && model.als().is_none());
            assert!(model.memory_bytes() > 0);
            assert_eq!(model.similar_users(&[0, 2], 3)[0].codes, [1]);
            assert!(model.similar_users(&[0, 2], 3)[1].codes.is_empty());
            let rows = model.item_rows();
            assert!((model.item_cosine(rows.as_ref(), 0, 1) - 1.0).abs() < 1e-6);
            assert_eq!(model.item_cosine(rows.as_ref(), 0, 2), 0.0);
        }
    }

    #[test]
    fn baskets_get_lists_without_their_own_items() {
        let models = models();
        let [item, popular] = [0, 1].map(|at: usize| models[at].recommender().unwrap());
        let request =
            RecommendRequest { top_k: 2, exclude_seen: true, include: None, exclude: None };
        let basket = Basket { user: None, items: vec![0], weights: vec![2.0] };
        let baskets = [basket.clone(), Basket::default()];
        let lists = item.recommend_baskets(&baskets, &request).unwrap();
        assert_eq!((&lists[0].items[..], &lists[0].scores[..]), (&[1][..], &[1.0][..]));
        assert_eq!(lists[1].source, Source::Popularity);
        let lists = popular.recommend_baskets(&baskets, &request).unwrap();
        assert_eq!((&lists[0].items[..], &lists[1].items[..]), (&[1, 2][..], &[0, 1][..]));
        let only = RecommendRequest { exclude_seen: false, include: Some(&[0, 2]), ..request };
        let lists = popular.recommend_baskets(&baskets, &only).unwrap();
        assert_eq!((&lists[0].items[..], &lists[1].items[..]), (&[0, 2][..], &[0, 2][..]));
        let wrong = [Basket { weights: vec![f32::NAN], ..basket }];
        assert!(item.recommend_baskets(&wrong, &request).is_err());
    }
}
