//! A lower bound, at 99.999 %, on the epsilon of two distributions, of answers drawn from each.

/// How surely a bound holds.
const MISS: f64 = 1e-5;

/// The Kullback-Leibler divergence of two coins.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |p: f64, q: f64| if p == 0.0 { 0.0 } else { p * (p / q).ln() };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

/// Bounds on a probability from a share of answers, by Chernoff: each fails with a probability
/// below half of [`MISS`]. They are wider than Clopper and Pearson's, and so is what is concluded.
fn probability(hits: usize, answers: usize) -> (f64, f64) {
    let share = hits as f64 / answers as f64;
    let limit = (2.0 / MISS).ln() / answers as f64;
    let search = |mut inside: f64, mut outside: f64| {
        for _ in 0..60 {
            let middle = 0.5 * (inside + outside);
            if divergence(share, middle) <= limit { inside = middle } else { outside = middle }
        }
        outside
    };
    (search(share, 0.0), search(share, 1.0))
}

/// An event: an answer is at most some number, or above it.
#[derive(Clone, Copy)]
struct Event {
    at: f64,
    is_above: bool,
}

impl Event {
    fn hits(self, answers: &[f64]) -> usize {
        answers.iter().filter(|answer| (**answer > self.at) == self.is_above).count()
    }
}

/// The bound of answers over two tables: the event, and the side on which it is likelier, are
/// chosen by the first halves, and judged by the second ones.
pub fn epsilon_at_least(left: &[f64], right: &[f64]) -> f64 {
    let half = left.len() / 2;
    let mut thresholds = [&left[..half], &right[..half]].concat();
    thresholds.sort_by(f64::total_cmp);
    let mut best = None;
    let mut score_max = 0.0;
    for part in 1..40 {
        let at = thresholds[part * thresholds.len() / 40];
        for is_above in [false, true] {
            let event = Event { at, is_above };
            for (likely, other) in [(left, right), (right, left)] {
                let [p, q] = [likely, other].map(|side| event.hits(&side[..half]) as f64);
                // Rare events are known too badly to show much.
                let (least, most) = ((p - 4.0 * p.sqrt()).max(1.0), q + 4.0 * q.sqrt() + 1.0);
                let score = (least / most).ln();
                if score > score_max {
                    score_max = score;
                    best = Some((event, likely, other));
                }
            }
        }
    }
    let Some((event, likely, other)) = best else { return 0.0 };
    let [p, q] = [likely, other].map(|side| event.hits(&side[half..]));
    let rest = left.len() - half;
    (probability(p, rest).0 / probability(q, rest).1).ln().max(0.0)
}
