//! Columns that follow from others: a postcode has its town.
//!
//! Where two records agree on a column that many share, and nearly always on another then too, that
//! other one tells nothing more. How often they do is counted over the records; columns that few
//! share are left alone, since there it is matches that agree on both. The most frequent values
//! count for neither: they may stand for no value (`guest@shop.com` of whoever is named `Guest`),
//! and a few such among a thousand would pass for what is usual.

use rayon::prelude::*;

use super::column::{Column, NONE};
use super::compare::{level_of, levels};

/// A column that tells nothing where another agrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependence {
    /// The column that decides.
    pub on: usize,
    /// The level from which it does: equal values.
    pub level: usize,
    /// The column that follows.
    pub column: usize,
}

/// Others that agree on the deciding column with each record, at least, on average.
const SHARED_MIN: f64 = 5.0;
/// How often the other column agrees then, at least.
const FOLLOWS_MIN: f64 = 0.5;
/// How much oftener than by chance.
const LIFT_MIN: f64 = 5.0;
/// Of so many values the most frequent one is left out, and so many at most.
const VALUES_A_LEFT_OUT: usize = 100;
const LEFT_OUT_MAX: usize = 10;

/// The dependences among columns.
pub fn dependences(columns: &[Column]) -> Vec<Dependence> {
    let count = columns.len();
    let alone: Vec<f64> = columns.iter().map(Column::coincidence).collect();
    let pairs: Vec<(usize, usize)> =
        (0..count).flat_map(|a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b).collect();
    let follows: Vec<f64> = pairs
        .par_iter()
        .map(|&(a, b)| {
            let usual = Usual::of(&columns[a]);
            // What nearly all share is followed by nothing.
            if usual.shared() < SHARED_MIN || usual.coincidence() > 0.1 {
                0.0
            } else {
                given(&columns[a], &usual, &columns[b])
            }
        })
        .collect();
    let of = |a: usize, b: usize| {
        pairs.iter().position(|&pair| pair == (a, b)).map_or(0.0, |at| follows[at])
    };
    let mut found: Vec<Dependence> = Vec::new();
    for (a, b) in pairs.iter().copied() {
        let share = of(a, b);
        let is_back = found.iter().any(|known| (known.on, known.column) == (b, a));
        let stronger = of(b, a) > share;
        if share >= FOLLOWS_MIN && share >= LIFT_MIN * alone[b] && !is_back && !stronger {
            found.push(Dependence { on: a, level: levels(columns[a].kind).len(), column: b });
        }
    }
    found
}

/// The values of a column but for the most frequent ones.
struct Usual {
    /// Values that more records have are left out.
    count_max: u32,
    /// Records that have the others, and their pairs that agree, each twice.
    records: f64,
    agreed: f64,
    /// All records, with a value or without.
    all: f64,
}

impl Usual {
    fn of(column: &Column) -> Self {
        let mut counts = column.counts.clone();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let left_out = (counts.len() / VALUES_A_LEFT_OUT).clamp(1, LEFT_OUT_MAX);
        // Values as frequent as the first that stays do too.
        let count_max = counts.get(left_out).copied().unwrap_or(0);
        let kept =
            counts.iter().filter(|count| **count <= count_max).map(|&count| f64::from(count));
        let (records, agreed) = kept.fold((0.0, 0.0), |(records, agreed), count| {
            (records + count, agreed + count * (count - 1.0))
        });
        Self { count_max, records, agreed, all: column.codes.len() as f64 }
    }

    /// How likely two records agree.
    fn coincidence(&self) -> f64 {
        if self.records < 2.0 { 0.0 } else { self.agreed / (self.records * (self.records - 1.0)) }
    }

    /// Others that agree with a record, on average.
    fn shared(&self) -> f64 {
        self.coincidence() * self.all
    }
}

/// How often records that agree on `a`, on a usual value, agree on `b`, where both have both.
fn given(a: &Column, usual: &Usual, b: &Column) -> f64 {
    let is_usual =
        |code: u32| a.counts.get(code as usize).is_some_and(|count| *count <= usual.count_max);
    let cells = a.codes.iter().zip(&b.codes).filter(|(a, b)| is_usual(**a) && **b != NONE);
    let mut cells: Vec<(u32, u32)> = cells.map(|(&a, &b)| (a, b)).collect();
    cells.sort_unstable();
    let pairs = |count: usize| count as f64 * (count as f64 - 1.0);
    let (mut equal, mut both) = (0.0, 0.0);
    for value in cells.chunk_by(|x, y| x.0 == y.0) {
        equal += pairs(value.len());
        both += value.chunk_by(|x, y| x.1 == y.1).map(|same| pairs(same.len())).sum::<f64>();
    }
    if equal > 0.0 { both / equal } else { 0.0 }
}

/// Levels without those that tell nothing.
#[inline]
pub fn told(dependences: &[Dependence], all: u64) -> u64 {
    let mut told = all;
    for dependence in dependences {
        if level_of(all, dependence.on) >= dependence.level {
            told &= !(15 << (4 * dependence.column));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::column::Gatherer;
    use super::super::kind::{Declared, Kind};
    use super::*;

    #[test]
    fn a_town_follows_from_its_postcode_and_not_the_other_way() {
        let mut gathered = [(); 3].map(|()| Gatherer::default());
        for row in 0_u32..2000 {
            gathered[0].push(Some(&format!("{}", 10_000 + row % 100)));
            gathered[1].push(Some(&format!("town{}", row % 100 / 10)));
            gathered[2].push(Some(&format!("name{}", row * 7919 % 1000)));
        }
        let order: Vec<u32> = (0..2000).collect();
        let finish = |gatherer: Gatherer| {
            gatherer.finish("c", Declared::Text, Some(Kind::Name), &order, &[])
        };
        let columns = gathered.map(finish);
        let found = dependences(&columns);
        assert_eq!(found, [Dependence { on: 0, level: 5, column: 1 }]);
        assert_eq!(told(&found, 0x155), 0x105);
        assert_eq!(told(&found, 0x154), 0x154);
    }

    /// Three records a person, and some that all say the same, which is nobody's.
    #[test]
    fn what_many_say_instead_of_nothing_makes_no_column_follow() {
        for nobody in [0_u32, 100, 300, 1500, 3000] {
            let mut gathered = [(); 2].map(|()| Gatherer::default());
            for row in 0..3000 + nobody {
                let person = row % 1000;
                let is_one = row < 3000;
                let name = if is_one { format!("name{person}") } else { "Guest".into() };
                let email = if is_one { format!("p{person}@x.org") } else { "guest@x.org".into() };
                gathered[0].push(Some(&name));
                gathered[1].push(Some(&email));
            }
            let order: Vec<u32> = (0..3000 + nobody).collect();
            let finish = |gatherer: Gatherer| {
                gatherer.finish("c", Declared::Text, Some(Kind::Name), &order, &[])
            };
            assert_eq!(dependences(&gathered.map(finish)), [], "{nobody}");
        }
    }
}
