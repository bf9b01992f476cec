//! Models of rows of features: what they predict, and what they are worth.
//!
//! Such a model is a learned part behind the [`Preparation`] that turned the training rows into
//! numbers. Rows are read, predicted and measured through it alone, so that training and
//! prediction cannot differ.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};

use super::boosted::{Classes, Targets, Trees, most_likely};
use super::entity_resolution::measure::MEASURES;
use super::error::ModelError;
use super::features::{Columns, FeatureKind, Preparation};
use super::isolation_forest::IsolationForest;
use super::kmeans::KMeansModel;
use super::outlier::{Judged, OutlierModel};
use super::pca::PcaModel;
use super::trained::Model;

/// A learned part with the preparation of its rows.
#[derive(Debug)]
pub struct Prepared<M> {
    preparation: Preparation,
    learned: M,
}

impl<M> Prepared<M> {
    /// How rows become numbers.
    pub fn preparation(&self) -> &Preparation {
        &self.preparation
    }

    /// What was learned of them.
    pub fn learned(&self) -> &M {
        &self.learned
    }

    fn checked(preparation: Preparation, learned: M, fits: bool) -> Result<Self, ModelError> {
        match fits {
            true => Ok(Self { preparation, learned }),
            false => {
                let what = "features and what was learned of them differ in number".to_owned();
                Err(ModelError::Inconsistent(what))
            }
        }
    }
}

impl Prepared<KMeansModel> {
    /// Clusters of prepared rows.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] when the parts do not fit together.
    pub fn clusters(preparation: Preparation, learned: KMeansModel) -> Result<Self, ModelError> {
        let width = preparation.width();
        let fits = width > 0
            && learned.shift.len() == width
            && learned.scale.len() == width
            && learned.centroids.len() == learned.counts.len() * width
            && !learned.counts.is_empty()
            && learned.span > 0.0
            && learned.span.is_finite()
            && are_units(&learned.shift, &learned.scale)
            && learned.centroids.iter().all(|x| x.is_finite());
        Self::checked(preparation, learned, fits)
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        let learned = &self.learned;
        let numbers = learned.centroids.len() + learned.counts.len() + 2 * learned.shift.len();
        self.preparation.memory_bytes() + (numbers + learned.losses.len()) * size_of::<f64>()
    }
}

impl Prepared<PcaModel> {
    /// Components of prepared rows.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] when the parts do not fit together.
    pub fn components(preparation: Preparation, learned: PcaModel) -> Result<Self, ModelError> {
        let (width, count) = (preparation.width(), learned.num_components());
        let fits = width > 0
            && learned.mean.len() == width
            && learned.scale.len() == width
            && learned.components.len() == count * width
            && learned.explained_variance_ratio.len() == count
            && are_units(&learned.mean, &learned.scale)
            && learned.components.iter().all(|x| x.is_finite());
        Self::checked(preparation, learned, fits)
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        let learned = &self.learned;
        let numbers = learned.components.len() + 2 * learned.mean.len();
        let of_components = 2 * learned.num_components();
        self.preparation.memory_bytes() + (numbers + of_components) * size_of::<f64>()
    }
}

impl Prepared<IsolationForest> {
    /// A forest on prepared rows.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] when the parts do not fit together.
    pub fn forest(preparation: Preparation, learned: IsolationForest) -> Result<Self, ModelError> {
        let fits = learned.width == preparation.width() && learned.is_sound();
        Self::checked(preparation, learned, fits)
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.preparation.memory_bytes() + self.learned.memory_bytes()
    }
}

impl Prepared<OutlierModel> {
    /// What is usual in columns of numbers.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] when the parts do not fit together.
    pub fn outliers(preparation: Preparation, learned: OutlierModel) -> Result<Self, ModelError> {
        let features = preparation.features();
        let fits = features.len() == learned.spreads.len()
            && features.iter().all(|of| matches!(of.kind, FeatureKind::Number { .. }))
            && learned.is_sound();
        Self::checked(preparation, learned, fits)
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.preparation.memory_bytes() + self.learned.memory_bytes()
    }

    /// Whether each row is an outlier, its score, and the column that it is of.
    fn judgement(&self, judged: &[Judged]) -> Vec<ArrayRef> {
        let outliers = judged.iter().map(|row| Some(row.is_outlier));
        let scores = judged.iter().map(|row| row.farthest.map(|(_, score)| score));
        let features = self.preparation.features();
        let name = |row: &Judged| {
            row.farthest.and_then(|(at, _)| features.get(at)).map(|of| of.name.as_str())
        };
        vec![
            Arc::new(outliers.collect::<BooleanArray>()),
            Arc::new(scores.collect::<Float64Array>()),
            Arc::new(judged.iter().map(name).collect::<StringArray>()),
        ]
    }
}

impl Prepared<Trees> {
    /// Trees on prepared rows.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] when the parts do not fit together.
    pub fn trees(preparation: Preparation, learned: Trees) -> Result<Self, ModelError> {
        let fits = learned.features() == preparation.features().len();
        Self::checked(preparation, learned, fits)
    }

    /// Bytes on the heap, about.
    pub fn memory_bytes(&self) -> usize {
        self.preparation.memory_bytes() + self.learned.memory_bytes()
    }
}

fn are_units(shift: &[f64], scale: &[f64]) -> bool {
    shift.iter().all(|x| x.is_finite()) && scale.iter().all(|x| *x > 0.0 && x.is_finite())
}

impl Model {
    /// How rows of features become numbers; `None` for recommenders.
    pub fn preparation(&self) -> Option<&Preparation> {
        match self {
            Self::KMeans(model) => Some(model.preparation()),
            Self::Pca(model) => Some(model.preparation()),
            Self::IsolationForest(model) => Some(model.preparation()),
            Self::Outlier(model) => Some(model.preparation()),
            Self::Boosted(model) => Some(model.preparation()),
            Self::Als(_)
            | Self::Item(_)
            | Self::Popularity(_)
            | Self::Hybrid(_)
            | Self::Entities(_) => None,
        }
    }

    /// The columns that [`Model::predict`] gives; none for recommenders.
    pub fn predicted(&self) -> Fields {
        let number = |name: String| Field::new(name, DataType::Float64, true);
        match self {
            Self::KMeans(_) => Fields::from(vec![
                Field::new("centroid_id", DataType::Int64, true),
                number("distance".to_owned()),
            ]),
            Self::Pca(model) => (1..=model.learned().num_components())
                .map(|component| number(format!("principal_component_{component}")))
                .collect(),
            Self::IsolationForest(_) => Fields::from(vec![
                Field::new("is_anomaly", DataType::Boolean, true),
                number("anomaly_score".to_owned()),
            ]),
            Self::Outlier(_) => Fields::from(vec![
                Field::new("is_outlier", DataType::Boolean, true),
                number("outlier_score".to_owned()),
                Field::new("outlier_column", DataType::Utf8, true),
            ]),
            Self::Boosted(model) => {
                let trees = model.learned();
                let name = format!("predicted_{}", trees.label);
                match &trees.classes {
                    None => Fields::from(vec![number(name)]),
                    Some(classes) => Fields::from(vec![
                        Field::new(&name, classes.data_type(), true),
                        Field::new(format!("{name}_probs"), probabilities_type(classes), true),
                    ]),
                }
            }
            Self::Als(_)
            | Self::Item(_)
            | Self::Popularity(_)
            | Self::Hybrid(_)
            | Self::Entities(_) => Fields::empty(),
        }
    }

    /// Predicts `rows` rows of features, their columns in the order of the preparation's: the
    /// nearest centroid (from 1) and the distance to it, the coordinates along the components,
    /// whether it is an anomaly with its score, whether it is an outlier with its score and the
    /// column that it is of, or what trees predict: a number, or a class and the probability of
    /// each, the largest first.
    ///
    /// # Errors
    /// Columns that do not fit the preparation, numbers that are not finite, a recommender.
    pub fn predict(&self, columns: &[ArrayRef], rows: usize) -> Result<StructArray, ModelError> {
        let columns = self.read(columns)?;
        let predicted: Vec<ArrayRef> = match self {
            Self::KMeans(_)
            | Self::Pca(_)
            | Self::IsolationForest(_)
            | Self::Outlier(_)
            | Self::Boosted(_)
                if rows == 0 =>
            {
                return Ok(StructArray::new_null(self.predicted(), 0));
            }
            Self::KMeans(model) => {
                let rows = model.preparation().one_hot(&columns);
                let (labels, distances) = model.learned().assign(&rows)?;
                let ids = labels.into_iter().map(|label| i64::from(label) + 1);
                vec![
                    Arc::new(Int64Array::from_iter_values(ids)),
                    Arc::new(Float64Array::from(distances)),
                ]
            }
            Self::Pca(model) => {
                let flat = model.learned().transform(&model.preparation().one_hot(&columns))?;
                let count = model.learned().num_components();
                let along = |at: usize| flat.iter().skip(at).step_by(count).copied();
                (0..count)
                    .map(|at| Arc::new(Float64Array::from_iter_values(along(at))) as ArrayRef)
                    .collect()
            }
            Self::IsolationForest(model) => {
                let scores = model.learned().scores(&model.preparation().one_hot(&columns))?;
                let anomalies = scores.iter().map(|score| Some(model.learned().is_anomaly(*score)));
                vec![
                    Arc::new(anomalies.collect::<BooleanArray>()),
                    Arc::new(Float64Array::from(scores)),
                ]
            }
            Self::Outlier(model) => model.judgement(&model.learned().judge(&columns, rows)?),
            Self::Boosted(model) => {
                let codes = model.preparation().codes(&columns, rows, |row| row);
                let scores = model.learned().scores(&codes)?;
                match &model.learned().classes {
                    None => vec![Arc::new(Float64Array::from(scores))],
                    Some(classes) => with_probabilities(classes, &scores)?,
                }
            }
            Self::Als(_)
            | Self::Item(_)
            | Self::Popularity(_)
            | Self::Hybrid(_)
            | Self::Entities(_) => {
                return Err(no_features());
            }
        };
        Ok(StructArray::try_new(self.predicted(), predicted, None)?)
    }

    /// Reads a batch of the columns of features, in the order of the preparation's.
    ///
    /// # Errors
    /// Columns that do not fit the preparation, numbers that are not finite, a recommender.
    pub fn read(&self, columns: &[ArrayRef]) -> Result<Columns, ModelError> {
        self.preparation().ok_or_else(no_features)?.read(columns)
    }

    /// The names of what [`Model::measure`] measures; none for recommenders.
    pub fn measures(&self) -> &'static [&'static str] {
        match self {
            Self::KMeans(_) => &["davies_bouldin_index", "mean_squared_distance"],
            Self::Pca(_) => &["total_explained_variance_ratio"],
            Self::IsolationForest(_) => &["anomaly_share", "mean_anomaly_score"],
            Self::Outlier(_) => &["outlier_share", "mean_outlier_score"],
            Self::Boosted(model) => model.learned().measures(),
            Self::Entities(_) => &MEASURES,
            Self::Als(_) | Self::Item(_) | Self::Popularity(_) | Self::Hybrid(_) => &[],
        }
    }

    /// What the model is worth on rows of [`Model::read`], in the order of [`Model::measures`];
    /// NaN where it is not defined. Only trees look at the rows' `targets`.
    ///
    /// # Errors
    /// [`ModelError::Empty`] without rows; a recommender.
    pub fn measure(&self, columns: &[Vec<f64>], targets: &Targets) -> Result<Vec<f64>, ModelError> {
        if columns.first().is_none_or(Vec::is_empty) {
            return Err(ModelError::Empty);
        }
        match self {
            Self::KMeans(model) => {
                let rows = model.preparation().one_hot(columns);
                let quality = model.learned().quality(&rows)?;
                Ok(vec![quality.davies_bouldin, quality.mean_squared_distance])
            }
            Self::Pca(model) => {
                let rows = model.preparation().one_hot(columns);
                Ok(vec![model.learned().explained(&rows)?])
            }
            Self::IsolationForest(model) => {
                let rows = model.preparation().one_hot(columns);
                let scores = model.learned().scores(&rows)?;
                let count = scores.len() as f64;
                let anomalies = scores.iter().filter(|score| model.learned().is_anomaly(**score));
                Ok(vec![anomalies.count() as f64 / count, scores.iter().sum::<f64>() / count])
            }
            Self::Outlier(model) => {
                let rows = columns.first().map_or(0, Vec::len);
                let judged = model.learned().judge(columns, rows)?;
                Ok(OutlierModel::measures(&judged).to_vec())
            }
            Self::Boosted(model) => {
                let rows = targets.labels.len();
                let codes = model.preparation().codes(columns, rows, |row| row);
                model.learned().measure(&codes, targets)
            }
            Self::Als(_)
            | Self::Item(_)
            | Self::Popularity(_)
            | Self::Hybrid(_)
            | Self::Entities(_) => Err(no_features()),
        }
    }
}

/// `List<Struct<label, prob>>`.
fn probabilities_type(classes: &Classes) -> DataType {
    let entry = DataType::Struct(probability_fields(classes));
    DataType::List(Arc::new(Field::new_list_field(entry, true)))
}

fn probability_fields(classes: &Classes) -> Fields {
    Fields::from(vec![
        Field::new("label", classes.data_type(), true),
        Field::new("prob", DataType::Float64, true),
    ])
}

/// The most likely class, and all of them with their probabilities, the largest first.
fn with_probabilities(classes: &Classes, scores: &[f64]) -> Result<Vec<ArrayRef>, ModelError> {
    let count = classes.names.len();
    let rows = || scores.chunks_exact(count);
    let order = rows().flat_map(|row| {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        order
    });
    let order: Vec<usize> = order.collect();
    let of = order.iter().enumerate().map(|(at, class)| scores[at / count * count + class]);
    let columns: Vec<ArrayRef> =
        vec![classes.column(order.iter().copied()), Arc::new(Float64Array::from_iter_values(of))];
    let entries = StructArray::try_new(probability_fields(classes), columns, None)?;
    let field = Arc::new(Field::new_list_field(entries.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(rows().map(|_| count));
    let lists = ListArray::try_new(field, offsets, Arc::new(entries), None)?;
    Ok(vec![classes.column(rows().map(most_likely)), Arc::new(lists)])
}

fn no_features() -> ModelError {
    ModelError::Inconsistent("a recommender has no features".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::{Float64Type, Int64Type};

    use super::super::features::FeatureRows;
    use super::super::outlier::{Method, OutlierOptions};
    use super::super::{kmeans, outlier, pca};
    use super::*;

    fn rows() -> Vec<ArrayRef> {
        let sizes = (0..60).map(|n| f64::from(n % 2) * 10.0 + f64::from(n).sin());
        let colours = (0..60).map(|n| ["red", "blue"][n % 2]);
        vec![
            Arc::new(Float64Array::from_iter_values(sizes)),
            Arc::new(StringArray::from_iter_values(colours)),
        ]
    }

    fn prepared() -> (Preparation, Columns) {
        let columns = [("size", &DataType::Float64), ("colour", &DataType::Utf8)];
        let mut gathered = FeatureRows::new(&columns).unwrap();
        gathered.add(&rows()).unwrap();
        let gathered = gathered.finish(&[]);
        (Preparation::new(gathered.features).unwrap(), gathered.columns)
    }

    #[test]
    fn clusters_predict_the_groups_that_they_were_made_of() {
        let (preparation, columns) = prepared();
        let options = kmeans::KMeansOptions { num_clusters: 2, ..Default::default() };
        let dense = preparation.one_hot(&columns);
        let go_on = AtomicBool::new(false);
        let learned = kmeans::train(&dense, 3, &options, &mut |_| {}, &go_on).unwrap();
        let model = Model::from(Prepared::clusters(preparation.clone(), learned.clone()).unwrap());
        let predicted = model.predict(&rows(), 60).unwrap();
        let ids = predicted.column(0).as_primitive::<Int64Type>().values();
        assert!(
            ids.iter().enumerate().all(|(row, id)| *id == ids[row % 2] && (1..=2).contains(id))
        );
        assert_ne!(ids[0], ids[1]);
        let measured = model.measure(&columns, &Targets::default()).unwrap();
        assert!(measured[0] > 0.0 && measured[0] < 0.5, "{measured:?}");
        assert_eq!((measured.len(), model.measures().len()), (2, 2));
        assert_eq!(
            model.predict(&[rows()[0].slice(0, 0), rows()[1].slice(0, 0)], 0).unwrap().len(),
            0
        );
        assert!(model.memory_bytes() > 0 && model.recommender().is_none());
        let wrong = kmeans::KMeansModel { scale: vec![1.0], ..learned };
        assert!(Prepared::clusters(preparation, wrong).is_err());
    }

    #[test]
    fn an_outlier_is_told_with_its_column() {
        let sizes: Vec<f64> = (0..40).map(|n| f64::from(n).sin()).chain([50.0]).collect();
        let rows: [ArrayRef; 2] =
            [Arc::new(Float64Array::from(sizes)), Arc::new(Float64Array::from(vec![3.0; 41]))];
        let columns = [("size", &DataType::Float64), ("weight", &DataType::Float64)];
        let mut gathered = FeatureRows::new(&columns).unwrap();
        gathered.add(&rows).unwrap();
        let gathered = gathered.finish(&[]);
        let preparation = Preparation::new(gathered.features).unwrap();
        let options = OutlierOptions { method: Method::Iqr, threshold: None };
        let go_on = AtomicBool::new(false);
        let learned = outlier::train(&gathered.columns, &options, &mut |_| {}, &go_on).unwrap();
        let model = Model::from(Prepared::outliers(preparation.clone(), learned.clone()).unwrap());
        let predicted = model.predict(&rows, 41).unwrap();
        let outliers = predicted.column(0).as_boolean();
        assert_eq!((outliers.true_count(), outliers.value(40)), (1, true));
        let scores = predicted.column(1).as_primitive::<Float64Type>();
        assert_eq!(Some(scores.value(40)), learned.spreads[0].score(50.0));
        assert_eq!(predicted.column(2).as_string::<i32>().value(40), "size");
        let measured = model.measure(&gathered.columns, &Targets::default()).unwrap();
        assert!((measured[0] - 1.0 / 41.0).abs() < 1e-12);
        assert_eq!((measured.len(), model.measures().len()), (2, 2));
        let none = [rows[0].slice(0, 0), rows[1].slice(0, 0)];
        assert_eq!(model.predict(&none, 0).unwrap().len(), 0);
        assert!(model.memory_bytes() > 0 && model.recommender().is_none());
        let (of_texts, _) = prepared();
        assert!(Prepared::outliers(of_texts, learned.clone()).is_err());
        let spreads = learned.spreads[..1].to_vec();
        let fewer = OutlierModel { spreads, ..learned };
        assert!(Prepared::outliers(preparation, fewer).is_err());
    }

    #[test]
    fn all_components_keep_all_of_the_variance() {
        let (preparation, columns) = prepared();
        let components = pca::Components::VarianceRatio(1.0);
        let options = pca::PcaOptions { components, ..Default::default() };
        let dense = preparation.one_hot(&columns);
        let go_on = AtomicBool::new(false);
        let learned = pca::train(&dense, 3, &options, &mut |_| {}, &go_on).unwrap();
        let ratio: f64 = learned.explained_variance_ratio.iter().sum();
        let model =
            Model::from(Prepared::components(preparation.clone(), learned.clone()).unwrap());
        assert!((model.measure(&columns, &Targets::default()).unwrap()[0] - ratio).abs() < 1e-9);
        assert!((ratio - 1.0).abs() < 1e-9);
        let predicted = model.predict(&rows(), 60).unwrap();
        let first = predicted.column(0).as_primitive::<Float64Type>();
        assert!(first.values()[0] * first.values()[1] < 0.0);
        assert_eq!(predicted.fields().len(), learned.num_components());
        let wrong = pca::PcaModel { mean: vec![], ..learned };
        assert!(Prepared::components(preparation, wrong).is_err());
        assert_eq!(
            model.measure(&[vec![], vec![]], &Targets::default()).unwrap_err(),
            ModelError::Empty
        );
    }
}
