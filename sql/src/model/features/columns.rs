//! Which column of a query is what: features, and those with another part.

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::models::LoadedModel;
use udfs::model::boosted::{ClassType, Task};
use udfs::model::features::{is_number, is_text};
use udfs::model::{Feature, FeatureKind, FeatureRows, Model};

use crate::error::{Error, Result};
use crate::model::features::{FeatureLearner, preparation};
use crate::model::options::{TrainingOptions, model_error};
use crate::model::train::find;

/// A column's position and name.
pub type Column = (usize, String);

/// The training query's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureColumns {
    /// The features.
    pub features: Vec<Column>,
    /// What is predicted.
    pub label: Option<Column>,
    /// What rows of one query have in common.
    pub group: Option<Column>,
    /// What the split is by.
    pub split: Option<Column>,
    /// The type of classes; none unless there are any.
    pub classes: Option<ClassType>,
}

impl FeatureColumns {
    /// Every column is a feature, unless an option names it.
    ///
    /// # Errors
    /// When a named column is missing, there is no feature, or a column is of a type that does not
    /// fit its part.
    pub fn find(schema: &SchemaRef, options: &TrainingOptions) -> Result<Self> {
        let mut found =
            Self { features: vec![], label: None, group: None, split: None, classes: None };
        if let Some(trees) = options.learner.features().and_then(|learner| learner.trees()) {
            let label = find(schema, "input_label_cols", trees.label_col.as_deref(), &["label"])?;
            found.classes = label_type(schema, &label, trees.boosted.task)?;
            found.label = Some(label);
            let group = trees.group_col.as_deref();
            let group = group.map(|name| find(schema, "query_group_col", Some(name), &[]));
            found.group = group.transpose()?;
            let usual = ["timestamp", "time", "event_time", "created_at", "ts"];
            let split = |named: Option<&str>| find(schema, "data_split_col", named, &usual);
            found.split = options.split.column(schema, split)?;
        }
        let parts = [&found.label, &found.group, &found.split];
        let taken: Vec<usize> = parts.into_iter().flatten().map(|(index, _)| *index).collect();
        if (1..taken.len()).any(|at| taken[..at].contains(&taken[at])) {
            return Err(Error::invalid_hint(
                "one column is named for two parts",
                "the label, the query and the split each have a column of their own",
            ));
        }
        let fields = schema.fields().iter().enumerate();
        found.features = fields
            .filter(|(index, _)| !taken.contains(index))
            .map(|(index, field)| (index, field.name().clone()))
            .collect();
        if found.features.is_empty() {
            return Err(Error::invalid_hint(
                "the training query has no column of features",
                "every column that no option names is one: SELECT more columns",
            ));
        }
        found.rows(schema)?;
        if let Some(FeatureLearner::Outlier(_)) = options.learner.features() {
            found.check_numbers(schema)?;
        }
        Ok(found)
    }

    /// Every feature has to be a number.
    fn check_numbers(&self, schema: &SchemaRef) -> Result<()> {
        let data_type = |index: usize| schema.field(index).data_type();
        match self.features.iter().find(|(index, _)| !is_number(data_type(*index))) {
            None => Ok(()),
            Some((index, name)) => Err(Error::invalid_hint(
                format!("column {name} has type {}, which is no number", data_type(*index)),
                "leave it out of the training query; model_type = 'isolation_forest' takes texts \
                 too",
            )),
        }
    }

    /// What gathers the rows of a query: the features, and the label behind them.
    ///
    /// # Errors
    /// When a column is of a type that is no feature.
    pub fn rows(&self, schema: &SchemaRef) -> Result<FeatureRows> {
        let typed = |(index, name): &Column| {
            let is_class =
                self.classes.is_some() && self.label.as_ref().is_some_and(|l| l.0 == *index);
            let data_type = schema.field(*index).data_type();
            (name.clone(), if is_class { DataType::Utf8 } else { data_type.clone() })
        };
        let typed: Vec<_> = self.features.iter().chain(&self.label).map(typed).collect();
        let typed: Vec<_> = typed.iter().map(|(name, of)| (name.as_str(), of)).collect();
        FeatureRows::new(&typed).map_err(model_error)
    }

    /// The columns of a batch in the order of [`FeatureColumns::rows`].
    ///
    /// # Errors
    /// When Arrow refuses to cast the label.
    pub fn of(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |(index, _): &Column| batch.column(*index).clone();
        let mut columns: Vec<ArrayRef> = self.features.iter().map(column).collect();
        if let Some((index, _)) = &self.label {
            let label = batch.column(*index);
            columns.push(match self.classes {
                Some(_) => cast(label, &DataType::Utf8)?,
                None => label.clone(),
            });
        }
        Ok(columns)
    }
}

/// The type of a classifier's classes.
fn label_type(schema: &SchemaRef, label: &Column, task: Task) -> Result<Option<ClassType>> {
    let (index, name) = label;
    let data_type = schema.field(*index).data_type();
    let wrong = |what: &str, hint: &str| {
        Err(Error::invalid_hint(
            format!("column {name} has type {data_type}, which is {what}"),
            hint,
        ))
    };
    match task {
        Task::Classifier if is_text(data_type) => Ok(Some(ClassType::Text)),
        Task::Classifier if data_type.is_integer() => Ok(Some(ClassType::Integer)),
        Task::Classifier if *data_type == DataType::Boolean => Ok(Some(ClassType::Truth)),
        Task::Classifier => wrong(
            "no class",
            "cast it to a text or a whole number in the training query, or take \
             model_type = 'boosted_tree_regressor'",
        ),
        Task::Regressor | Task::Ranker if is_number(data_type) => Ok(None),
        Task::Regressor | Task::Ranker => {
            wrong("no number", "cast it to a number in the training query")
        }
    }
}

/// Where a query has what a model asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    /// Of each feature.
    pub features: Vec<usize>,
    /// Of the label, when it is asked for.
    pub label: Option<usize>,
    /// Of the query of a ranker, likewise.
    pub group: Option<usize>,
}

impl Positions {
    /// The features alone, as for a prediction.
    ///
    /// # Errors
    /// When one is missing, or of a type that is not read as in training.
    pub fn to_predict(model: &LoadedModel, schema: &SchemaRef) -> Result<Self> {
        let features = preparation(model)?.features().iter();
        let features = features.map(|feature| position(schema, feature)).collect::<Result<_>>()?;
        Ok(Self { features, label: None, group: None })
    }

    /// The features, and of trees the label and the query of each row.
    ///
    /// # Errors
    /// When one is missing, or of a type that is not read as in training.
    pub fn to_measure(model: &LoadedModel, schema: &SchemaRef) -> Result<Self> {
        let mut found = Self::to_predict(model, schema)?;
        let Model::Boosted(trees) = model.model.as_ref() else { return Ok(found) };
        let named = |name: &str, what: &str| match schema.column_with_name(name) {
            Some((index, _)) => Ok(index),
            None => Err(missing(schema, name, what)),
        };
        let trees = trees.learned();
        let label = named(&trees.label, "which the model predicts")?;
        let data_type = schema.field(label).data_type();
        if trees.classes.is_none() && !is_number(data_type) {
            return Err(Error::invalid_hint(
                format!("column {} has type {data_type}, which is no number", trees.label),
                "cast it in the query",
            ));
        }
        found.label = Some(label);
        let group = trees.group.as_deref();
        let group = group.map(|name| named(name, "which says what query a row is of"));
        found.group = group.transpose()?;
        Ok(found)
    }
}

fn position(schema: &SchemaRef, feature: &Feature) -> Result<usize> {
    let Some((index, field)) = schema.column_with_name(&feature.name) else {
        return Err(missing(schema, &feature.name, "which the model has learned from"));
    };
    let data_type = field.data_type();
    if feature.reads(data_type) {
        return Ok(index);
    }
    let was = match feature.kind {
        FeatureKind::Number { .. } => "numbers",
        FeatureKind::Category(_) => "texts",
    };
    let name = &feature.name;
    Err(Error::invalid_hint(
        format!("column {name} has type {data_type}; the model has learned from {was}"),
        format!("cast {name} in the query"),
    ))
}

fn missing(schema: &SchemaRef, name: &str, what: &str) -> Error {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Error::invalid_hint(
        format!("the query has no column {name}, {what}"),
        format!("select it; columns: {}", names.join(", ")),
    )
}
