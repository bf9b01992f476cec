//! What boosted trees have to learn, whatever the threads.

use super::*;

fn number(name: &str) -> Feature {
    Feature { name: name.into(), kind: FeatureKind::Number { mean: 0.0 } }
}

fn features() -> Vec<Feature> {
    let colours = FeatureKind::Category(["blue", "green", "red"].map(str::to_owned).to_vec());
    vec![number("x"), number("noise"), Feature { name: "colour".into(), kind: colours }]
}

fn classes(names: &[&str]) -> Classes {
    Classes { of: ClassType::Text, names: names.iter().map(|name| (*name).to_owned()).collect() }
}

/// Rows of x between 0 and 1, noise, and a colour, some of them missing.
fn rows(count: usize, seed: u32, label: impl Fn(f32, f32) -> f32) -> Part {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1_u32 << 24) as f32
    };
    let mut part = Part::default();
    for row in 0..count {
        let (x, noise, colour) = (next(), next(), (next() * 3.0).floor());
        part.labels.push(label(x, colour));
        part.values.extend([x, if row % 17 == 0 { f32::NAN } else { noise }, colour]);
    }
    part
}

fn grow(
    options: &BoostedOptions,
    of: Option<Classes>,
    training: Part,
    validation: Option<Part>,
) -> Result<Grown, ModelError> {
    let features = features();
    let group = (options.task == Task::Ranker).then(|| "query".to_owned());
    let growth = Growth { features: &features, label: "y".into(), group, classes: of, options };
    growth.run(training, validation, &mut |_| {}, &AtomicBool::new(false))
}

fn targets(part: &Part) -> Targets {
    Targets { labels: part.labels.iter().map(|&y| f64::from(y)).collect(), groups: vec![] }
}

#[test]
fn classes_are_told_apart_and_early_stopping_ends() {
    let label = |x: f32, colour: f32| f32::from(u8::from((x > 0.5) == (colour == 1.0)));
    let options = BoostedOptions::new(Task::Classifier);
    let (training, validation) = (rows(4_000, 1, label), rows(1_000, 2, label));
    let test = rows(1_000, 3, label);
    let of = classes(&["no", "yes"]);
    let grown = grow(&options, Some(of.clone()), training.clone(), Some(validation)).unwrap();
    let measured = grown.trees.measure(&test.values, &targets(&test)).unwrap();
    assert!(measured[2] > 0.98 && measured[5] > 0.99, "{measured:?}");
    assert!(grown.best_iteration.is_some());
    let importance = grown.trees.importance();
    assert!(importance[0][1] > importance[1][1] && importance[2][1] > importance[1][1]);
    // What is stored is what was trained.
    let trees = &grown.trees;
    let read = Trees::from_parts(
        trees.task,
        "y".into(),
        None,
        Some(of.clone()),
        vec![],
        &trees.bytes().unwrap(),
    )
    .unwrap();
    assert_eq!(read.scores(&test.values).unwrap(), trees.scores(&test.values).unwrap());
    assert!(read.memory_bytes() > 0 && read.features() == 3);
    let wrong =
        Trees::from_parts(trees.task, "y".into(), None, None, vec![], &trees.bytes().unwrap());
    assert!(wrong.is_err());
    assert!(Trees::from_parts(trees.task, "y".into(), None, Some(of), vec![], b"none").is_err());
}

#[test]
fn three_classes_numbers_and_queries_are_learned() {
    let third = |x: f32, _: f32| (x * 3.0).floor().min(2.0);
    let options = BoostedOptions::new(Task::Classifier);
    let test = rows(600, 9, third);
    let grown =
        grow(&options, Some(classes(&["a", "b", "c"])), rows(3_000, 4, third), None).unwrap();
    let measured = grown.trees.measure(&test.values, &targets(&test)).unwrap();
    assert!(measured[2] > 0.97, "{measured:?}");
    assert_eq!(grown.best_iteration, None);

    let line = |x: f32, colour: f32| 10.0 * x + colour;
    let options = BoostedOptions::new(Task::Regressor);
    let test = rows(600, 9, line);
    let grown = grow(&options, None, rows(3_000, 5, line), None).unwrap();
    let measured = grown.trees.measure(&test.values, &targets(&test)).unwrap();
    assert!(measured[4] > 0.99, "{measured:?}");

    let relevant = |x: f32, _: f32| (x * 4.0).floor().min(3.0);
    let options = BoostedOptions::new(Task::Ranker);
    let queries = |part: Part| Part { group_sizes: vec![10; part.labels.len() / 10], ..part };
    let grown = grow(&options, None, queries(rows(2_000, 6, relevant)), None).unwrap();
    let test = rows(500, 7, relevant);
    let groups = (0..500).map(|row| row / 10).collect();
    let measured =
        grown.trees.measure(&test.values, &Targets { groups, ..targets(&test) }).unwrap();
    assert!(measured[0] > 0.98, "{measured:?}");
}

#[test]
fn threads_change_nothing() {
    let label = |x: f32, colour: f32| f32::from(u8::from(x * 2.0 + colour > 1.7));
    let options = BoostedOptions {
        subsample: 0.7,
        colsample_bytree: 0.7,
        max_iterations: 20,
        seed: 11,
        ..BoostedOptions::new(Task::Classifier)
    };
    let bytes = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let of = Some(classes(&["no", "yes"]));
        pool.install(|| grow(&options, of, rows(3_000, 1, label), None).unwrap().trees.bytes())
    };
    assert_eq!(bytes(1).unwrap(), bytes(3).unwrap());
}

#[test]
fn calibrated_probabilities_mend_those_of_weighted_classes() {
    // One in ten is a yes, by chance alone.
    let rare = |seed: u32, count: usize| {
        let mut part = rows(count, seed, |_, _| 0.0);
        let noise = |row: usize| part.values[row * 3 + 1];
        let labels = (0..count).map(|row| f32::from(u8::from(noise(row) > 0.9))).collect();
        part.labels = labels;
        // What the label is made of is taken away.
        part.values.chunks_exact_mut(3).for_each(|row| row[1] = f32::NAN);
        part
    };
    let of = || Some(classes(&["no", "yes"]));
    let weighted = BoostedOptions {
        class_weights: ClassWeights::Balanced,
        max_iterations: 10,
        max_tree_depth: 2,
        ..BoostedOptions::new(Task::Classifier)
    };
    let test = rare(3, 2_000);
    let loss = |calibration: Calibration| {
        let options = BoostedOptions { calibration, ..weighted.clone() };
        let grown = grow(&options, of(), rare(1, 4_000), Some(rare(2, 2_000))).unwrap();
        grown.trees.measure(&test.values, &targets(&test)).unwrap()[4]
    };
    let (plain, platt, isotonic) =
        (loss(Calibration::None), loss(Calibration::Platt), loss(Calibration::Isotonic));
    assert!(plain > 0.6, "{plain}");
    assert!(platt < 0.36 && isotonic < 0.37, "{platt} {isotonic}");
    let options = BoostedOptions { calibration: Calibration::Platt, ..weighted.clone() };
    assert_eq!(grow(&options, of(), rare(1, 400), None).unwrap_err().code(), "model_option");
    let given = ClassWeights::Given(vec![("maybe".into(), 1.0)]);
    let options = BoostedOptions { class_weights: given, ..weighted };
    assert_eq!(grow(&options, of(), rare(1, 400), None).unwrap_err().code(), "model_option");
}

#[test]
fn a_training_that_is_cancelled_gives_no_trees() {
    let options = BoostedOptions::new(Task::Regressor);
    let features = features();
    let growth = Growth {
        features: &features,
        label: "y".into(),
        group: None,
        classes: None,
        options: &options,
    };
    let cancel = AtomicBool::new(true);
    let found = growth.run(rows(100, 1, |x, _| x), None, &mut |_| {}, &cancel);
    assert_eq!(found.unwrap_err(), ModelError::Cancelled);
    assert_eq!(grow(&options, None, Part::default(), None).unwrap_err(), ModelError::Empty);
    for wrong in [
        BoostedOptions { max_iterations: 0, ..options.clone() },
        BoostedOptions { max_tree_depth: 17, ..options.clone() },
        BoostedOptions { learn_rate: 0.0, ..options.clone() },
        BoostedOptions { subsample: 1.5, ..options.clone() },
        BoostedOptions { l2_reg: -1.0, ..options.clone() },
    ] {
        assert_eq!(wrong.validate().unwrap_err().code(), "model_option");
    }
}
