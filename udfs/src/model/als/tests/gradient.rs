//! Gradients of several parties: the objective's own slope, whole and in parts.

use super::super::gradient::ItemGradient;
use super::*;

fn options(scaling: Scaling) -> AlsOptions {
    AlsOptions {
        feedback: Feedback::Implicit,
        num_factors: 5,
        max_iterations: 2,
        wals_alpha: Some(3.0),
        l2_reg: Some(0.2),
        regularization_scaling: Some(scaling),
        ..AlsOptions::default()
    }
}

/// The rows of some users, the others' empty, with the same codes.
fn of_users(csr: &Csr, is_theirs: impl Fn(usize) -> bool) -> Csr {
    let mut triplets = Triplets::default();
    for user in (0..csr.rows()).filter(|&user| is_theirs(user)) {
        let (columns, values) = csr.row(user);
        for (&item, &value) in columns.iter().zip(values) {
            triplets.push(user as u32, item, value, "w").unwrap();
        }
    }
    triplets.build(csr.rows(), csr.columns(), Duplicates::Sum).0
}

#[test]
fn a_step_goes_down_the_slope_of_the_objective() {
    let csr = sample(30, 20, 7);
    for scaling in [Scaling::Constant, Scaling::Count, Scaling::Frequency] {
        let options = options(scaling);
        let mut factors = quiet(&csr, &options);
        // Away from where training ended, which is nearly flat.
        factors.item_factors.iter_mut().for_each(|y| *y *= 1.3);
        let gradient = ItemGradient::of(&csr, &options, &factors).unwrap();
        // A step of this size moves each factor by the slope.
        let mut moved = factors.item_factors.clone();
        gradient.step(&options, &mut moved, 1.0).unwrap();
        for at in (0..moved.len()).step_by(3) {
            let slope = f64::from(factors.item_factors[at]) - f64::from(moved[at]);
            let beside = |by: f32| {
                let mut factors = factors.clone();
                factors.item_factors[at] += by;
                let there = f64::from(factors.item_factors[at]);
                (there, objective(&csr, &options, &factors))
            };
            let ((low, below), (high, above)) = (beside(-0.01), beside(0.01));
            let expected = (above - below) / (high - low);
            assert!(
                (slope - expected).abs() < 1e-3 * (1.0 + expected.abs()),
                "{scaling:?} {at}: {slope} {expected}"
            );
        }
        let before = objective(&csr, &options, &factors);
        let mut after = factors.clone();
        gradient.step(&options, &mut after.item_factors, 1e-4).unwrap();
        assert!(objective(&csr, &options, &after) < before, "{scaling:?}");
    }
}

#[test]
fn parties_together_say_what_one_says_that_has_all() {
    let csr = sample(40, 25, 9);
    let options = options(Scaling::Frequency);
    let factors = quiet(&csr, &options);
    let whole = ItemGradient::of(&csr, &options, &factors).unwrap();
    let part = |rest| {
        let own = of_users(&csr, |user| user % 3 == rest);
        ItemGradient::of(&own, &options, &factors).unwrap()
    };
    let mut together = part(0);
    together.add(&part(1)).unwrap();
    together.add(&part(2)).unwrap();
    let moved = |gradient: &ItemGradient| {
        let mut items = factors.item_factors.clone();
        gradient.step(&options, &mut items, 0.01).unwrap();
        items
    };
    for (one, other) in moved(&whole).iter().zip(moved(&together)) {
        assert!((one - other).abs() < 1e-4 * (1.0 + one.abs()), "{one} {other}");
    }
}

#[test]
fn what_parties_would_choose_apart_must_be_named() {
    let csr = sample(10, 8, 1);
    let named = options(Scaling::Constant);
    let factors = quiet(&csr, &named);
    for options in [
        AlsOptions { wals_alpha: None, ..named.clone() },
        AlsOptions { l2_reg: None, ..named.clone() },
        AlsOptions { feedback: Feedback::Explicit, ..named.clone() },
    ] {
        let error = ItemGradient::of(&csr, &options, &factors).unwrap_err();
        assert_eq!(error.code(), "model_option");
    }
    let other = AlsFactors { item_factors: vec![0.0; 5], ..factors };
    assert!(ItemGradient::of(&csr, &named, &other).is_err());
}
