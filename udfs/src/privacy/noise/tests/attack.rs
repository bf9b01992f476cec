//! Attacks: which doubles can come out, and what neighbours' answers tell apart.

use rand::Rng;

use super::super::bounded::{Bounds, IntegerSum, Moments, RealSum, choose};
use super::super::bounds::Bins;
use super::super::distinct::Covered;
use super::super::quantile::Quantile;
use super::super::{Mechanism, Noise, Sensitivity, gaussian, laplace};
use super::epsilon::epsilon_at_least;
use super::seeded;

fn unit() -> Sensitivity {
    Sensitivity::new(1, 1, 1.0).unwrap()
}

/// Laplace noise as it should not be made: `value` + s · ln(u) in doubles.
fn naive(value: f64, scale: f64, rng: &mut impl Rng) -> f64 {
    let uniform = ((rng.random::<u64>() >> 11) as f64 * 2_f64.powi(-53)).max(2_f64.powi(-53));
    let sign = if rng.random::<bool>() { 1.0_f64 } else { -1.0 };
    value + sign * scale * uniform.ln()
}

/// Whether [`naive`] can give `answer` for `value`: whether one of the uniform numbers near the one
/// that would have to be drawn gives exactly these bits.
fn reachable(answer: f64, value: f64, scale: f64) -> bool {
    [1.0_f64, -1.0].into_iter().any(|sign| {
        let distance = (answer - value) / sign;
        let middle = ((distance / scale).exp() * 2_f64.powi(53)).round();
        distance <= 0.0
            && (-40..=40).any(|step| {
                let uniform = (middle + f64::from(step)) * 2_f64.powi(-53);
                uniform > 0.0 && uniform <= 1.0 && value + sign * scale * uniform.ln() == answer
            })
    })
}

#[test]
fn the_attack_finds_out_naive_noise() {
    // Mironov's: of two neighbours the wrong one is ruled out by most answers.
    let mut rng = seeded(200);
    let answers: Vec<f64> = (0..1_000).map(|_| naive(1.0, 10.0, &mut rng)).collect();
    let own = answers.iter().filter(|answer| reachable(**answer, 1.0, 10.0)).count();
    let other = answers.iter().filter(|answer| reachable(**answer, 0.0, 10.0)).count();
    assert_eq!(own, 1_000);
    assert!(other < 600, "{other}");
}

#[test]
fn every_answer_can_come_from_every_value() {
    let mut rng = seeded(201);
    let values = [0.0, 1.0, 0.1, 1.0 / 3.0, -7.123_456_789, 1e6 + 0.1];
    let noises = [Noise::Laplace { epsilon: 0.1 }, Noise::Gaussian { epsilon: 0.1, delta: 1e-6 }];
    for noise in noises {
        let mechanism = Mechanism::for_reals(noise, &unit()).unwrap();
        let grid = mechanism.grid();
        for value in values {
            for _ in 0..200 {
                let answer = mechanism.real(value, &mut rng);
                // The answer is a point of the grid, the same for all values, and every other value
                // is a whole number of steps away from it: noise that can be drawn.
                let units = grid.units(answer);
                assert_eq!(grid.value(units), answer);
                for other in values {
                    let drawn = units - grid.units(other);
                    assert_eq!(grid.value(grid.units(other) + drawn), answer);
                }
            }
        }
    }
}

#[test]
fn the_lowest_bit_of_an_answer_tells_nothing() {
    let mut rng = seeded(202);
    let lowest = |answer: f64| {
        let mantissa = (answer.to_bits() & ((1 << 52) - 1)) | (1 << 52);
        let exponent = i32::try_from((answer.to_bits() >> 52) & 0x7ff).unwrap() - 1075;
        exponent + i32::try_from(mantissa.trailing_zeros()).unwrap()
    };
    for value in [0.0, 1.0, 0.1, 1.0 / 3.0] {
        for _ in 0..500 {
            let answer = laplace::real(value, 10.0, &mut rng).unwrap();
            assert!(answer == 0.0 || lowest(answer) >= laplace::grid(10.0).exponent());
            let answer = gaussian::real(value, 10.0, &mut rng).unwrap();
            assert!(answer == 0.0 || lowest(answer) >= gaussian::grid(10.0).exponent());
        }
        // Naive noise has bits below any such grid.
        let naive = (0..500).map(|_| lowest(naive(value, 10.0, &mut rng))).min().unwrap();
        assert!(naive < laplace::grid(10.0).exponent());
    }
}

/// The bound for answers over data and over data with one more unit.
fn tell_apart(draws: u32, mut answer: impl FnMut(bool) -> f64) -> f64 {
    let mut side = |more| (0..draws).map(|_| answer(more)).collect::<Vec<f64>>();
    let (left, right) = (side(false), side(true));
    epsilon_at_least(&left, &right)
}

#[test]
fn counts_and_sums_tell_no_more_than_their_epsilon() {
    let mut rng = seeded(203);
    for epsilon in [0.5, 1.0, 2.0] {
        let noise = Noise::Laplace { epsilon };
        let count = IntegerSum::new(noise, &unit(), 0, 1).unwrap();
        let shown = tell_apart(100_000, |more| {
            count.release_total(100 + i128::from(more), &mut rng) as f64
        });
        // And it is not far below: the bound would find twice too little noise.
        assert!(shown <= epsilon && shown > 0.6 * epsilon, "{epsilon}: {shown}");
        let sum = RealSum::new(noise, &unit(), Bounds::new(-3.0, 5.0).unwrap()).unwrap();
        let shown = tell_apart(50_000, |more| {
            let more = more.then_some(1e9);
            sum.release([0.1, 0.2].into_iter().chain(more), &mut rng)
        });
        assert!(shown <= epsilon && shown > 0.6 * epsilon, "{epsilon}: {shown}");
    }
    let noise = Noise::Gaussian { epsilon: 1.0, delta: 1e-6 };
    let count = IntegerSum::new(noise, &unit(), 0, 1).unwrap();
    let shown = tell_apart(50_000, |more| count.release_total(i128::from(more), &mut rng) as f64);
    assert!(shown <= 1.0, "{shown}");
}

#[test]
fn too_little_noise_is_found_out() {
    let mut rng = seeded(204);
    for (scale, least) in [(0.5, 1.5), (0.8, 1.0)] {
        let shown = tell_apart(100_000, |more| {
            laplace::integer(i128::from(more), scale, &mut rng).unwrap() as f64
        });
        assert!(shown > least, "scale {scale} for epsilon 1: {shown}");
    }
}

#[test]
fn a_unit_in_many_groups_tells_no_more_than_the_whole_epsilon() {
    // Five groups, of which two are kept: the sum over groups is what tells most.
    let mut rng = seeded(205);
    let two = Sensitivity::new(2, 1, 1.0).unwrap();
    let count = IntegerSum::new(Noise::Laplace { epsilon: 1.0 }, &two, 0, 1).unwrap();
    let shown = tell_apart(30_000, |more| {
        let units: Vec<usize> = if more { vec![9; 5] } else { vec![] };
        let kept = choose(&units, 2, &mut rng);
        let mut groups = [0_i128; 5];
        for (group, kept) in groups.iter_mut().zip(kept) {
            *group += i128::from(kept);
        }
        groups.iter().map(|total| count.release_total(*total, &mut rng) as f64).sum()
    });
    assert!(shown <= 1.0, "{shown}");
}

#[test]
fn parts_of_gaussian_noise_tell_no_more_than_the_whole() {
    // What tells most of four answers of equal noise is their sum.
    let mut rng = seeded(207);
    let noise = Noise::Gaussian { epsilon: 1.0, delta: 1e-6 };
    let count = IntegerSum::new(noise.split(4), &unit(), 0, 1).unwrap();
    let shown = tell_apart(30_000, |more| {
        (0..4).map(|_| count.release_total(i128::from(more), &mut rng) as f64).sum()
    });
    assert!(shown <= 1.0, "{shown}");
}

#[test]
fn distinct_values_tell_no_more_than_their_epsilon() {
    // Of five values the first unit covers three; the others cover what is left to them.
    let mut rng = seeded(208);
    let count = IntegerSum::new(Noise::Laplace { epsilon: 1.0 }, &unit(), 0, 3).unwrap();
    let mut shown = |units: &[&[u8]]| {
        tell_apart(50_000, |more| {
            let mut covered = Covered::default();
            for unit in &units[usize::from(!more)..] {
                covered.cover(unit.chunks(1).collect(), 3);
            }
            count.release_total(i128::try_from(covered.count()).unwrap(), &mut rng) as f64
        })
    };
    let found = shown(&[b"abcde", b"ab", b"cde"]);
    assert!(found <= 1.0, "{found}");
    let found = shown(&[b"abcde", b"vwxyz"]);
    assert!(found <= 1.0 && found > 0.6, "{found}");
}

#[test]
fn means_quantiles_and_bounds_tell_no_more_than_their_epsilon() {
    let mut rng = seeded(206);
    let noise = Noise::Laplace { epsilon: 1.0 };
    let within = Bounds::new(0.0, 1.0).unwrap();
    let mean = Moments::for_mean(noise, &unit(), within).unwrap();
    let variance = Moments::for_variance(noise, &unit(), within).unwrap();
    let median = Quantile::new(0.5, within, &unit(), 1.0).unwrap();
    let bins = Bins::for_integers(&unit(), 1.0).unwrap();
    let entries = [0.0, 0.0, 1.0];
    let more_of = |more: bool| entries.into_iter().chain(more.then_some(1.0));
    let shown = [
        tell_apart(30_000, |more| mean.mean(more_of(more), &mut rng)),
        tell_apart(30_000, |more| variance.variance(more_of(more), &mut rng)),
        tell_apart(30_000, |more| median.release(more_of(more), &mut rng)),
        tell_apart(2_000, |more| {
            let many = std::iter::repeat_n(7.0, 25 + usize::from(more));
            bins.release(many, &mut rng).map_or(-1.0, |bounds| bounds.upper())
        }),
    ];
    assert!(shown.iter().all(|shown| *shown <= 1.0), "{shown:?}");
}

/// Of answers that tell nothing nothing is found, and of those that tell all a lot.
#[test]
fn the_bound_finds_what_there_is() {
    let same: Vec<f64> = (0..1_000).map(|number| f64::from(number * 7 % 100)).collect();
    assert_eq!(epsilon_at_least(&same, &same), 0.0);
    let other: Vec<f64> = same.iter().map(|number| number + 1_000.0).collect();
    assert!(epsilon_at_least(&same, &other) > 3.0);
}
