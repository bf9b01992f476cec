//! Growing boosted trees: which rows they learn from, and what they are worth on the rest.

use std::sync::atomic::AtomicBool;

use udfs::model::als::Progress as Step;
use udfs::model::boosted::{Classes, Division, Growth, Part, Targets, Task};
use udfs::model::{Feature, FeatureKind, ModelError, Preparation, Prepared};

use crate::error::{Error, Result};
use crate::model::features::FeatureColumns;
use crate::model::features::division::divide;
use crate::model::features::fit::{Learned, Sorted};
use crate::model::features::options::TreeOptions;
use crate::model::options::model_error;
use crate::model::splitting::SplitOptions;

/// The largest relevance: gains are 2^relevance − 1.
const RELEVANCE_MAX: f64 = 31.0;

/// Grows trees on the training part of the rows, with the validation part, and measures them on
/// the test part.
///
/// # Errors
/// Labels that are no classes, numbers or relevances, no rows to learn from, cancellation.
pub fn grow(
    sorted: Sorted,
    options: &TreeOptions,
    (columns, split): (&FeatureColumns, &SplitOptions),
    report: &mut (dyn FnMut(Step) + Send),
    cancel: &AtomicBool,
) -> Result<Learned> {
    let Sorted { mut rows, groups, keys } = sorted;
    let task = options.boosted.task;
    let (Some(label), Some(labels)) = (rows.features.pop(), rows.columns.pop()) else {
        return Err(Error::Internal("trees have a label".into()));
    };
    check(&label, &labels, task)?;
    let classes = classes(&label, columns)?;
    let divided = divide(split, task, &labels, &groups, &keys);
    let preparation = Preparation::new(rows.features).map_err(model_error)?;
    let part = |of: Division| part(&preparation, &rows.columns, &labels, &groups, &divided, of);
    let (training, validation, test) =
        (part(Division::Training), part(Division::Validation), part(Division::Test));
    if training.is_empty() {
        return Err(Error::Model {
            what: "every row is kept aside, and none is left to learn from".into(),
            hint: Some("look at data_split_col, or take another data_split_method".into()),
        });
    }
    let validation = Some(validation).filter(|part| !part.is_empty());
    let validation_metric = validation.as_ref().map(|_| match task {
        Task::Classifier => "log_loss",
        Task::Regressor => "rmse",
        Task::Ranker => "ndcg",
    });
    let group = columns.group.as_ref().map(|(_, name)| name.clone());
    let features = preparation.features();
    let growth = Growth { features, label: label.name, group, classes, options: &options.boosted };
    let grown = growth.run(training, validation, report, cancel).map_err(model_error)?;
    let measured_rows = test.labels.len();
    let metrics = match measured_rows {
        0 => vec![],
        _ => grown.trees.measure(&test.values, &targets(&test)).map_err(model_error)?,
    };
    let best_iteration = grown.best_iteration;
    let model = Prepared::trees(preparation, grown.trees).map_err(model_error)?.into();
    Ok(Learned { model, metrics, measured_rows, validation_metric, best_iteration })
}

fn check(label: &Feature, labels: &[f64], task: Task) -> Result<()> {
    if labels.iter().any(|label| label.is_nan()) {
        return Err(model_error(ModelError::Null { column: label.name.clone() }));
    }
    let is_relevance = |y: f64| y.fract() == 0.0 && (0.0..=RELEVANCE_MAX).contains(&y);
    match labels.iter().find(|label| task == Task::Ranker && !is_relevance(**label)) {
        None => Ok(()),
        Some(value) => Err(Error::Model {
            what: format!("column {} holds {value}, which is no relevance", label.name),
            hint: Some("a ranker takes whole numbers from 0, not relevant, to 31".into()),
        }),
    }
}

fn classes(label: &Feature, columns: &FeatureColumns) -> Result<Option<Classes>> {
    let (Some(of), FeatureKind::Category(names)) = (columns.classes, &label.kind) else {
        return Ok(None);
    };
    if names.len() < 2 {
        return Err(Error::Model {
            what: format!("column {} has one class only, '{}'", label.name, names.join("")),
            hint: Some("a classifier tells two or more apart: look at the training query".into()),
        });
    }
    Ok(Some(Classes { of, names: names.clone() }))
}

/// The rows of one part.
fn part(
    preparation: &Preparation,
    columns: &[Vec<f64>],
    labels: &[f64],
    groups: &[u32],
    divided: &[Division],
    of: Division,
) -> Part {
    let rows: Vec<usize> = (0..labels.len()).filter(|&row| divided[row] == of).collect();
    let group_sizes = match groups.is_empty() {
        true => vec![],
        false => rows.chunk_by(|&a, &b| groups[a] == groups[b]).map(<[usize]>::len).collect(),
    };
    Part {
        values: preparation.codes(columns, rows.len(), |at| rows[at]),
        labels: rows.iter().map(|&row| labels[row] as f32).collect(),
        group_sizes,
    }
}

/// What is known of the rows of a part.
fn targets(part: &Part) -> Targets {
    let sizes = (0..).zip(&part.group_sizes);
    Targets {
        labels: part.labels.iter().map(|&label| f64::from(label)).collect(),
        groups: sizes.flat_map(|(group, &size)| std::iter::repeat_n(group, size)).collect(),
    }
}
