//! Google's statistical cases (`testdata/dp`, Apache-2.0): raw data, a neighbour of it, bounds and
//! parameters, chosen to make broken mechanisms visible.
//!
//! All of them are judged as Google judges them. A vote draws both sides, counts the answers in
//! cells, and accepts when the delta that the shares show at the case's epsilon, in the worse
//! direction, is as small as allowed. The majority of nine votes decides, and no vote is cast once
//! it is certain.
//!
//! Google's votes have up to a million draws a side, for which `granularity` and `delta_tolerance`
//! were calibrated, and accept and reject with a probability of .9: the majority errs with one of
//! 9 · 10^-4. That takes 2 · 10^9 releases: it is done where `ATTUNE_DP_BALLOT` is set, best with
//! `--release`.
//!
//! Otherwise a vote has [`DRAWS`] a side in wider cells, and in place of the tolerance stands what
//! chance may do to so few, computed from the counts. A vote then accepts what is private with a
//! probability of .95 at least: the majority errs with one below 3.5 · 10^-5 in a case, below
//! 8 · 10^-3 in any of the 216. It rejects what Google's has to reject, a distance of 1.175 times
//! the sensitivity (1.185 of sums), under Laplace noise of an epsilon of 1 or more, which the tests
//! hold it to: each vote with a probability of .9 at least. It finds out Gaussian noise of a third
//! of its sigma at such an epsilon. Of smaller epsilons, of deltas, and of epsilons so large that
//! [`DRAWS`] cannot show what the other side must give, only the ballot tells more.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::super::bounded::{Bounds, IntegerSum, Moments, RealSum};
use super::super::bounds::Bins;
use super::super::normal::upper_tail;
use super::super::quantile::Quantile;
use super::super::{Mechanism, Noise, Sensitivity};
use super::seeded;
use super::textproto::{Message, read};

/// How often a vote draws each side, unless it is Google's.
const DRAWS: u32 = 4_000;

/// How often noise is drawn whose distribution is looked at.
const DRAWS_OF_SHAPE: u32 = 5_000;

/// How many votes there are at most.
const VOTES: usize = 9;

/// Cells that are seen less often than this on both sides together are taken as one.
const SPARSE: f64 = 20.0;

/// How often an answer must be expected on one side, of how often it is seen on the other, to be
/// missed there.
const EXPECTED: f64 = 3.0;

/// How many deviations of chance a vote allows.
const ALLOWED: f64 = 3.0;

/// How often each answer was given for the data and for its neighbour.
type Counts = BTreeMap<i64, [f64; 2]>;

fn noise_of(sampling: &Message) -> Noise {
    let epsilon = sampling.number("epsilon");
    match sampling.words("noise_type").first() {
        Some(&"GAUSSIAN") => Noise::Gaussian { epsilon, delta: sampling.number("delta") },
        _ => Noise::Laplace { epsilon },
    }
}

/// Whether Google's own numbers of draws are asked for.
fn is_ballot() -> bool {
    std::env::var_os("ATTUNE_DP_BALLOT").is_some()
}

fn granularity(case: &Message) -> f64 {
    case.message("dp_test_parameters").number("granularity")
}

/// The width of a cell: Google's, or this one where there are fewer draws.
fn width(case: &Message, wider: f64) -> f64 {
    if is_ballot() { granularity(case) } else { wider }
}

/// Laplace noise that is too small by a factor, as if the data were that much further apart; none
/// where so few draws would not show it.
fn careless(noise: Noise, factor: f64) -> Option<Noise> {
    match noise {
        Noise::Laplace { epsilon } if epsilon >= 1.0 => {
            Some(Noise::Laplace { epsilon: factor * epsilon })
        }
        _ => None,
    }
}

/// By how much more than the sensitivity data have to be apart for the judge to see it.
fn specificity(file: &Message) -> f64 {
    file.message("validity_parameters").number("distance_specificity")
}

fn sensitivity_of(sampling: &Message) -> Sensitivity {
    let whole = |name: &str| sampling.number(name).max(1.0) as u32;
    let entries = whole("max_contributions_per_partition").max(whole("max_contributions"));
    Sensitivity::new(whole("max_partitions_contributed"), entries, 1.0).unwrap()
}

fn bounds_of(sampling: &Message) -> Bounds {
    Bounds::new(sampling.number("lower_bound"), sampling.number("upper_bound")).unwrap()
}

fn drawn(draws: u32, mut answer: impl FnMut(usize) -> i64) -> Counts {
    let mut counts = Counts::new();
    for side in 0..2 {
        for _ in 0..draws {
            counts.entry(answer(side)).or_default()[side] += 1.0;
        }
    }
    counts
}

/// The delta between two sides at an epsilon, as far as draws tell: the larger of both directions.
fn lost(counts: &Counts, draws: f64, epsilon: f64) -> f64 {
    let factor = epsilon.exp();
    let directed = |first: usize, second: usize| -> f64 {
        let beyond = |cell: &[f64; 2]| (cell[first] - factor * cell[second]).max(0.0) / draws;
        counts.values().map(beyond).sum()
    };
    directed(0, 1).max(directed(1, 0))
}

/// The same, less what chance explains.
///
/// Where p = exp(epsilon) q the positive part of the difference of two shares is 0.4 of its
/// standard deviation on average, with a deviation of less than 0.6 of it. Where p is three
/// deviations and more below, chance adds nothing.
fn unexplained(counts: &Counts, draws: f64, epsilon: f64) -> f64 {
    let mut cells = vec![[0.0_f64; 2]];
    for [left, right] in counts.values() {
        if left + right < SPARSE {
            cells[0][0] += left;
            cells[0][1] += right;
        } else {
            cells.push([*left, *right]);
        }
    }
    let factor = epsilon.exp();
    let directed = |first: usize, second: usize| {
        let (mut excess, mut chance, mut square) = (0.0_f64, 0.0_f64, 0.0_f64);
        // Where the other side would be seen less than once or twice, not to see it tells nothing.
        let tells = |cell: &&[f64; 2]| cell[first] >= factor * EXPECTED;
        for cell in cells.iter().filter(tells) {
            let (p, q) = (cell[first] / draws, cell[second] / draws);
            let variance = (p + factor * factor * q) / draws;
            let difference = p - factor * q;
            excess += difference.max(0.0);
            if difference > -3.0 * variance.sqrt() {
                chance += 0.4 * variance.sqrt();
                square += variance;
            }
        }
        excess - chance - ALLOWED * 0.6 * square.sqrt()
    };
    directed(0, 1).max(directed(1, 0))
}

/// A vote: what is above zero is not private.
fn vote(case: &Message, sampling: &Message, answer: impl FnMut(usize) -> i64) -> f64 {
    let parameters = case.message("dp_test_parameters");
    let (epsilon, delta) = (parameters.number("epsilon"), parameters.number("delta"));
    if is_ballot() {
        let draws = sampling.number("number_of_samples");
        let counts = drawn(draws as u32, answer);
        lost(&counts, draws, epsilon) - delta - parameters.number("delta_tolerance")
    } else {
        unexplained(&drawn(DRAWS, answer), f64::from(DRAWS), epsilon) - delta
    }
}

/// Votes until the majority is certain.
fn ballot(mut vote: impl FnMut() -> f64) -> Vec<f64> {
    let (mut votes, mut accepted) = (Vec::with_capacity(VOTES), 0);
    while accepted <= VOTES / 2 && votes.len() - accepted <= VOTES / 2 {
        let beyond = vote();
        accepted += usize::from(beyond <= 0.0);
        votes.push(beyond);
    }
    votes
}

/// What the votes on a case come to.
fn judge(case: &Message, sampling: &Message, mut answer: impl FnMut(usize) -> i64) -> Vec<f64> {
    ballot(|| vote(case, sampling, &mut answer))
}

fn is_accepted(votes: &[f64]) -> bool {
    votes.iter().filter(|beyond| **beyond <= 0.0).count() > VOTES / 2
}

fn name(case: &Message) -> String {
    case.words("name").join("")
}

fn hold(votes: &[f64], case: &Message) {
    assert!(is_accepted(votes), "{}: beyond what is allowed by {votes:?}", name(case));
}

/// A judge that passes everything would be none.
fn find_out(votes: &[f64], case: &Message) {
    assert!(!is_accepted(votes), "{}: too little noise passed, {votes:?}", name(case));
}

/// The number of the cell that an answer falls into.
fn cell(answer: f64, width: f64) -> i64 {
    (answer / width).round() as i64
}

#[test]
fn counts_are_private() {
    let mut rng = seeded(300);
    let file = read("count_dp_test_cases.textproto");
    for case in file.messages("count_dp_test_case") {
        let sampling = case.message("count_sampling_parameters");
        let totals = ["raw_increment_by", "neighbour_raw_increment_by"]
            .map(|field| sampling.numbers(field).iter().sum::<f64>() as i128);
        let sensitivity = sensitivity_of(sampling);
        let count = |noise: Noise| IntegerSum::new(noise, &sensitivity, 0, 1).unwrap();
        let wide = 0.5 * count(noise_of(sampling)).mechanism().scale();
        let width = width(case, wide).round().max(1.0);
        let mut judged = |noise: Noise| {
            let count = count(noise);
            judge(case, sampling, |side| {
                cell(count.release_total(totals[side], &mut rng) as f64, width)
            })
        };
        hold(&judged(noise_of(sampling)), case);
        if let Some(noise) = careless(noise_of(sampling), specificity(&file)) {
            find_out(&judged(noise), case);
        }
    }
}

#[test]
fn sums_are_private() {
    let mut rng = seeded(301);
    let file = read("bounded_sum_dp_test_cases.textproto");
    for case in file.messages("bounded_sum_dp_test_case") {
        let sampling = case.message("bounded_sum_sampling_parameters");
        let entries = ["raw_entry", "neighbour_raw_entry"].map(|field| sampling.numbers(field));
        let (sensitivity, bounds) = (sensitivity_of(sampling), bounds_of(sampling));
        let sum = |noise: Noise| RealSum::new(noise, &sensitivity, bounds).unwrap();
        let width = width(case, 0.5 * sum(noise_of(sampling)).mechanism().scale());
        let mut judged = |noise: Noise| {
            let sum = sum(noise);
            judge(case, sampling, |side| {
                cell(sum.release(entries[side].iter().copied(), &mut rng), width)
            })
        };
        hold(&judged(noise_of(sampling)), case);
        if let Some(noise) = careless(noise_of(sampling), specificity(&file)) {
            find_out(&judged(noise), case);
        }
    }
}

#[test]
fn means_are_private() {
    let mut rng = seeded(302);
    let file = read("bounded_mean_dp_test_cases.textproto");
    for case in file.messages("bounded_mean_dp_test_case") {
        let sampling = case.message("bounded_mean_sampling_parameters");
        let entries = ["raw_entry", "neighbour_raw_entry"].map(|field| sampling.numbers(field));
        let (sensitivity, bounds) = (sensitivity_of(sampling), bounds_of(sampling));
        let width = width(case, 8.0 * granularity(case));
        let mean = Moments::for_mean(noise_of(sampling), &sensitivity, bounds).unwrap();
        let votes = judge(case, sampling, |side| {
            cell(mean.mean(entries[side].iter().copied(), &mut rng), width)
        });
        hold(&votes, case);
    }
}

#[test]
fn deviations_are_private() {
    let mut rng = seeded(303);
    let file = read("bounded_stdv_dp_test_cases.textproto");
    for case in file.messages("bounded_stdv_dp_test_case") {
        let sampling = case.message("bounded_stdv_sampling_parameters");
        let entries = ["raw_entry", "neighbour_raw_entry"].map(|field| sampling.numbers(field));
        let (sensitivity, bounds) = (sensitivity_of(sampling), bounds_of(sampling));
        let width = width(case, 8.0 * granularity(case));
        let variance = Moments::for_variance(noise_of(sampling), &sensitivity, bounds).unwrap();
        let votes = judge(case, sampling, |side| {
            cell(variance.variance(entries[side].iter().copied(), &mut rng).sqrt(), width)
        });
        hold(&votes, case);
    }
}

#[test]
fn quantiles_are_private() {
    let mut rng = seeded(304);
    let file = read("bounded_quantiles_dp_test_cases.textproto");
    for case in file.messages("bounded_quantiles_dp_test_case") {
        let sampling = case.message("bounded_quantiles_sampling_parameters");
        let entries = ["raw_entry", "neighbour_raw_entry"].map(|field| sampling.numbers(field));
        let (sensitivity, bounds) = (sensitivity_of(sampling), bounds_of(sampling));
        let buckets = case.message("dp_test_parameters").number("num_of_buckets");
        let width = (bounds.upper() - bounds.lower()) / buckets;
        let bucket = |answer: f64| ((answer - bounds.lower()) / width).floor().min(buckets - 1.0);
        let median = Quantile::new(0.5, bounds, &sensitivity, sampling.number("epsilon")).unwrap();
        let votes = judge(case, sampling, |side| {
            bucket(median.release(entries[side].iter().copied(), &mut rng)) as i64
        });
        hold(&votes, case);
    }
}

#[test]
fn approximate_bounds_are_private() {
    let mut rng = seeded(305);
    let file = read("approximate_bounds_dp_test_cases.textproto");
    for case in file.messages("approximate_bounds_dp_test_case") {
        let sampling = case.message("approximate_bounds_sampling_parameters");
        let entries = ["raw_entry", "neighbour_raw_entry"].map(|field| sampling.numbers(field));
        let bins = Bins::new(
            sampling.number("scale"),
            sampling.number("base"),
            sampling.number("number_of_bins") as u32,
            &sensitivity_of(sampling),
            sampling.number("epsilon"),
        )
        .unwrap();
        let votes = judge(case, sampling, |side| {
            let found = bins.release(entries[side].iter().copied(), &mut rng);
            found.map_or(i64::MAX, |found| (1000.0 * found.lower() + found.upper()) as i64)
        });
        hold(&votes, case);
    }
}

/// How far two distributions are apart beyond a tolerance of their l2 distance: pairs of equal
/// answers of a side against such pairs across sides. Not below zero is too far.
fn apart(counts: &Counts, draws: f64, tolerance: f64) -> f64 {
    let (mut own, mut across) = (0.0_f64, 0.0_f64);
    for [left, right] in counts.values() {
        own += 0.5 * (left * (left - 1.0) + right * (right - 1.0));
        across += left * right;
    }
    let limit = 0.25 * tolerance * tolerance * draws * (draws - 1.0);
    own - (draws - 1.0) / draws * across - limit
}

/// Whether noise has the mean, the variance and the shape of its continuous distribution, of
/// which `upper` gives the tail and `reference` draws, both at a mean of 0 and a variance of 1.
fn close(file: &str, upper: impl Fn(f64) -> f64, reference: impl Fn(&mut StdRng) -> f64) {
    let mut rng = seeded(306);
    for case in read(file).messages("distribution_closeness_test_case") {
        let (sampling, expected) =
            (case.message("noise_sampling_parameters"), case.message("closeness_test_parameters"));
        let epsilon = sampling.number("epsilon");
        let noise = match sampling.numbers("delta").first() {
            Some(delta) => Noise::Gaussian { epsilon, delta: *delta },
            None => Noise::Laplace { epsilon },
        };
        let groups = sampling.number("l0_sensitivity") as u32;
        let sensitivity = Sensitivity::new(groups, 1, sampling.number("linf_sensitivity")).unwrap();
        let mechanism = Mechanism::for_reals(noise, &sensitivity).unwrap();
        let (raw, mean) = (sampling.number("raw_input"), expected.number("mean"));
        let deviation = expected.number("variance").sqrt();
        if is_ballot() {
            let (draws, width) =
                (sampling.number("number_of_samples"), expected.number("granularity"));
            let votes = ballot(|| {
                let counts = drawn(draws as u32, |side| match side {
                    0 => cell(mechanism.real(raw, &mut rng), width),
                    _ => cell(mean + deviation * reference(&mut rng), width),
                });
                apart(&counts, draws, expected.number("l2_tolerance"))
            });
            hold(&votes, case);
            continue;
        }
        let mut draws: Vec<f64> = (0..DRAWS_OF_SHAPE)
            .map(|_| (mechanism.real(raw, &mut rng) - mean) / deviation)
            .collect();
        let count = draws.len() as f64;
        let average = draws.iter().sum::<f64>() / count;
        let variance = draws.iter().map(|draw| draw * draw).sum::<f64>() / count;
        // Five standard errors: Laplace noise has a kurtosis of 6.
        assert!(average.abs() < 5.0 / count.sqrt(), "{}: mean {average}", name(case));
        let within = 5.0 * (5.0 / count).sqrt();
        assert!((variance - 1.0).abs() < within, "{}: variance {variance}", name(case));
        draws.sort_by(f64::total_cmp);
        let places = draws.iter().enumerate();
        let distance = places
            .map(|(place, draw)| ((place as f64 + 0.5) / count - (1.0 - upper(*draw))).abs())
            .fold(0.0, f64::max);
        assert!(distance < 2.5 / count.sqrt(), "{}: distance {distance}", name(case));
    }
}

#[test]
fn laplace_noise_is_close_to_its_distribution() {
    // Of variance 1: scale 1/sqrt 2.
    let tail = |x: f64| {
        let tail = 0.5 * (-x.abs() * std::f64::consts::SQRT_2).exp();
        if x < 0.0 { 1.0 - tail } else { tail }
    };
    let reference = |rng: &mut StdRng| {
        let size = -(1.0 - rng.random::<f64>()).ln() / std::f64::consts::SQRT_2;
        if rng.random::<bool>() { size } else { -size }
    };
    close("laplace_closeness_test_cases.textproto", tail, reference);
}

#[test]
fn gaussian_noise_is_close_to_its_distribution() {
    // Box and Muller's.
    let reference = |rng: &mut StdRng| {
        let size = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        size * (std::f64::consts::TAU * rng.random::<f64>()).cos()
    };
    close("gaussian_closeness_test_cases.textproto", upper_tail, reference);
}
