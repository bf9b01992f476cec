//! Conjugate gradients on one row's scaled normal equations.
//!
//! With the dense part diagonal and scaled away (see [`super::gram`]), a row's system is
//! (I + ZᵀZ)·w = Zᵀt + p, where Z has one row for each interaction and p, the scaled prior mean,
//! is 0 for a row without features. Two passes over Z make a step, and Z stays in the cache.
//! Eigenvalues are 1 but for as many as there are interactions, which is why two or three steps
//! from the last iteration's factors do.

use std::sync::atomic::AtomicBool;

use pulp::Simd;

use super::super::cancel;
use super::super::kernel::{add_scaled, dot, products, scale_then_add, weighted_sum};
use super::ahead::Ahead;
use super::row::Scratch;

/// Improves `scratch.w` by at most `steps` steps and returns the row's objective
/// |Z·w|² − 2·t·(Z·w) + |w|² − 2·p·w, which is 0 for w = 0. What is `ahead` is fetched meanwhile.
#[inline(always)]
pub(super) fn solve<S: Simd>(
    simd: S,
    scratch: &mut Scratch,
    steps: usize,
    ahead: &mut Ahead<'_>,
    cancel: &AtomicBool,
) -> f64 {
    // Passes over Z that are left, of which each fetches its share.
    let passes = |step: usize| 2 * (steps - step) + 2;
    let Scratch {
        z, targets, products: s, w, residual, direction, image, prior, has_prior, ..
    } = scratch;
    let prior: Option<&[f32]> = has_prior.then_some(prior);
    ahead.fetch(passes(0));
    products(simd, z, w, s);
    let mut objective = f64::from(dot(simd, w, w));
    if let Some(prior) = prior {
        objective -= 2.0 * f64::from(dot(simd, prior, w));
    }
    for (s, &t) in s.iter_mut().zip(targets.iter()) {
        objective += f64::from(*s * (*s - 2.0 * t));
        *s = t - *s;
    }
    ahead.fetch(passes(0) - 1);
    weighted_sum(simd, z, s, prior, residual);
    add_scaled(simd, residual, -1.0, w);
    let mut gamma = dot(simd, residual, residual);
    let enough = 1e-13 * (gamma + dot(simd, w, w));
    direction.copy_from_slice(residual);
    for step in 1..=steps {
        if gamma <= enough || cancel::is_set(cancel) {
            break;
        }
        ahead.fetch(passes(step));
        products(simd, z, direction, s);
        ahead.fetch(passes(step) - 1);
        weighted_sum(simd, z, s, Some(direction), image);
        let curvature = dot(simd, direction, image);
        let length = gamma / curvature;
        if !length.is_finite() {
            break;
        }
        add_scaled(simd, w, length, direction);
        objective -= f64::from(length) * f64::from(gamma);
        if step == steps {
            break;
        }
        add_scaled(simd, residual, -length, image);
        let next = dot(simd, residual, residual);
        scale_then_add(simd, direction, next / gamma, residual);
        gamma = next;
    }
    objective
}
