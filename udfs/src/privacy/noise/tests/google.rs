//! Google's statistical cases (`testdata/dp`, Apache-2.0): raw data, a neighbour of it, bounds and
//! parameters, chosen to make broken mechanisms visible.
//!
//! They were calibrated for up to a million draws a case and a majority of nine votes. That takes
//! long: it is done where `ATTUNE_DP_BALLOT` is set, best with `--release`. Otherwise a case gets
//! five thousand draws a side, and what chance may do to so few is computed from the counts.

use std::collections::BTreeMap;

use super::super::bounded::{Bounds, IntegerSum, Moments, RealSum};
use super::super::bounds::Bins;
use super::super::normal::upper_tail;
use super::super::quantile::Quantile;
use super::super::{Mechanism, Noise, Sensitivity};
use super::seeded;
use super::textproto::{Message, read};

const DRAWS: u32 = 5_000;

/// How often the whole procedure is done for a case.
const VOTES: usize = 9;

/// Cells that are seen less often than this on both sides together are taken as one.
const SPARSE: f64 = 20.0;

fn noise_of(sampling: &Message) -> Noise {
    let epsilon = sampling.number("epsilon");
    match sampling.words("noise_type").first() {
        Some(&"GAUSSIAN") => Noise::Gaussian { epsilon, delta: sampling.number("delta") },
        _ => Noise::Laplace { epsilon },
    }
}

/// Whether Google's whole procedure is asked for.
fn is_ballot() -> bool {
    std::env::var_os("ATTUNE_DP_BALLOT").is_some()
}

/// The width of a cell, for which Google's has to be this much wider where there are fewer draws.
fn wider(factor: f64, case: &Message) -> f64 {
    let granularity = case.message("dp_test_parameters").number("granularity");
    if is_ballot() { granularity } else { factor * granularity }
}

/// The same noise for half the privacy.
fn careless(noise: Noise) -> Noise {
    match noise {
        Noise::Laplace { epsilon } => Noise::Laplace { epsilon: 2.0 * epsilon },
        Noise::Gaussian { epsilon, delta } => Noise::Gaussian { epsilon: 2.0 * epsilon, delta },
        Noise::Concentrated { rho } => Noise::Concentrated { rho: 4.0 * rho },
    }
}

fn sensitivity_of(sampling: &Message) -> Sensitivity {
    let whole = |name: &str| sampling.number(name).max(1.0) as u32;
    let entries = whole("max_contributions_per_partition").max(whole("max_contributions"));
    Sensitivity::new(whole("max_partitions_contributed"), entries, 1.0).unwrap()
}

fn bounds_of(sampling: &Message) -> Bounds {
    Bounds::new(sampling.number("lower_bound"), sampling.number("upper_bound")).unwrap()
}

/// By how much the delta between two sides is beyond what chance explains; up to zero if private.
///
/// Where p = exp(epsilon) q the positive part of the difference of two shares is 0.4 of its
/// standard deviation on average, with a deviation of less than 0.6 of it.
fn excess_delta(sides: [&[i64]; 2], epsilon: f64, delta: f64) -> f64 {
    let mut cells: BTreeMap<i64, [f64; 2]> = BTreeMap::new();
    for (side, answers) in sides.into_iter().enumerate() {
        for answer in answers {
            cells.entry(*answer).or_default()[side] += 1.0;
        }
    }
    let mut counts = vec![[0.0_f64; 2]];
    for [left, right] in cells.into_values() {
        if left + right < SPARSE {
            counts[0][0] += left;
            counts[0][1] += right;
        } else {
            counts.push([left, right]);
        }
    }
    let (draws, factor) = (f64::from(DRAWS), epsilon.exp());
    let directed = |first: usize, second: usize| {
        let (mut excess, mut chance, mut square) = (0.0_f64, 0.0_f64, 0.0_f64);
        for cell in &counts {
            let (p, q) = (cell[first] / draws, cell[second] / draws);
            let variance = (p + factor * factor * q) / draws;
            excess += (p - factor * q).max(0.0);
            chance += 0.4 * variance.sqrt();
            square += variance;
        }
        excess - delta - chance - 4.0 * 0.6 * square.sqrt()
    };
    directed(0, 1).max(directed(1, 0))
}

/// Draws both sides of a case; what is above zero is not private.
fn judge(case: &Message, sampling: &Message, mut answer: impl FnMut(usize) -> i64) -> f64 {
    let parameters = case.message("dp_test_parameters");
    let (epsilon, delta) = (parameters.number("epsilon"), parameters.number("delta"));
    if is_ballot() {
        let draws = sampling.number("number_of_samples") as u32;
        let allowed = delta + parameters.number("delta_tolerance");
        let mut vote = || lost([0, 1].map(|side| shares(draws, || answer(side))), epsilon);
        let mut votes: Vec<f64> = (0..VOTES).map(|_| vote() - allowed).collect();
        // A majority accepts where the one in the middle does.
        votes.sort_by(f64::total_cmp);
        return votes[VOTES / 2];
    }
    let mut side = |side| (0..DRAWS).map(|_| answer(side)).collect::<Vec<i64>>();
    let (left, right) = (side(0), side(1));
    excess_delta([&left, &right], epsilon, delta)
}

/// How often each answer is given.
fn shares(draws: u32, mut answer: impl FnMut() -> i64) -> BTreeMap<i64, f64> {
    let mut shares = BTreeMap::new();
    for _ in 0..draws {
        *shares.entry(answer()).or_insert(0.0) += 1.0 / f64::from(draws);
    }
    shares
}

/// The delta between two sides at an epsilon, as far as draws tell: the larger of both directions.
fn lost(sides: [BTreeMap<i64, f64>; 2], epsilon: f64) -> f64 {
    let directed = |from: &BTreeMap<i64, f64>, to: &BTreeMap<i64, f64>| -> f64 {
        let factor = epsilon.exp();
        let other = |answer: &i64| to.get(answer).copied().unwrap_or(0.0);
        from.iter().map(|(answer, share)| (share - factor * other(answer)).max(0.0)).sum()
    };
    let [left, right] = &sides;
    directed(left, right).max(directed(right, left))
}

fn name(case: &Message) -> String {
    case.words("name").join("")
}

fn hold(found: f64, case: &Message) {
    assert!(found <= 0.0, "{}: delta is {found} beyond chance", name(case));
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
        let count = IntegerSum::new(noise_of(sampling), &sensitivity, 0, 1).unwrap();
        hold(judge(case, sampling, |side| count.release_total(totals[side], &mut rng)), case);
        // A judge that passes everything would be none.
        if name(case).contains("Laplace noise, small count, default") {
            let noise = careless(noise_of(sampling));
            let count = IntegerSum::new(noise, &sensitivity, 0, 1).unwrap();
            let found = judge(case, sampling, |side| count.release_total(totals[side], &mut rng));
            assert!(found > 0.0, "half the noise was not found out: {found}");
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
        let width = wider(16.0, case);
        let mut judged = |noise: Noise| {
            let sum = RealSum::new(noise, &sensitivity, bounds).unwrap();
            judge(case, sampling, |side| {
                cell(sum.release(entries[side].iter().copied(), &mut rng), width)
            })
        };
        hold(judged(noise_of(sampling)), case);
        if name(case).contains("Laplace noise, small positive sum, default") {
            let found = judged(careless(noise_of(sampling)));
            assert!(found > 0.0, "half the noise was not found out: {found}");
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
        let width = wider(8.0, case);
        let mean = Moments::for_mean(noise_of(sampling), &sensitivity, bounds).unwrap();
        let found = judge(case, sampling, |side| {
            cell(mean.mean(entries[side].iter().copied(), &mut rng), width)
        });
        hold(found, case);
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
        let width = wider(8.0, case);
        let variance = Moments::for_variance(noise_of(sampling), &sensitivity, bounds).unwrap();
        let found = judge(case, sampling, |side| {
            cell(variance.variance(entries[side].iter().copied(), &mut rng).sqrt(), width)
        });
        hold(found, case);
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
        let median = Quantile::new(0.5, bounds, &sensitivity, sampling.number("epsilon")).unwrap();
        let found = judge(case, sampling, |side| {
            cell(median.release(entries[side].iter().copied(), &mut rng), width)
        });
        hold(found, case);
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
        let found = judge(case, sampling, |side| {
            let found = bins.release(entries[side].iter().copied(), &mut rng);
            found.map_or(i64::MAX, |found| (1000.0 * found.lower() + found.upper()) as i64)
        });
        hold(found, case);
    }
}

/// Whether noise has the mean, the variance and the shape of its continuous distribution.
fn close(file: &str, upper: impl Fn(f64) -> f64) {
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
        let mut draws: Vec<f64> =
            (0..DRAWS).map(|_| (mechanism.real(raw, &mut rng) - mean) / deviation).collect();
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
    close("laplace_closeness_test_cases.textproto", |x| {
        // Of variance 1: scale 1/sqrt 2.
        let tail = 0.5 * (-x.abs() * std::f64::consts::SQRT_2).exp();
        if x < 0.0 { 1.0 - tail } else { tail }
    });
}

#[test]
fn gaussian_noise_is_close_to_its_distribution() {
    close("gaussian_closeness_test_cases.textproto", upper_tail);
}
