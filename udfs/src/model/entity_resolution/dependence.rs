//! Columns that follow from others: a postcode has its town.
//!
//! Where two records agree on a column that many share, and nearly always on another then too, that
//! other one tells nothing more. How often they do is counted over the records; columns that few
//! share are left alone, since there it is matches that agree on both, and so are those of which
//! the pairs that agree on them agree on most of the rest too: they are the many records of one
//! person. The most frequent values count for neither: they may stand for no value
//! (`guest@shop.com` of whoever is named `Guest`), and a few such among a thousand would pass for
//! what is usual.

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
/// Of what pairs that agree on the deciding column could agree on beside, in bits, the part in
/// which they do, at most: matches agree on most of it.
const ALIKE_MAX: f64 = 0.6;
/// A prime, by whose multiples places are scattered.
const SCATTER: usize = 2_654_435_761;
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
        if share >= FOLLOWS_MIN
            && share >= LIFT_MIN * alone[b]
            && !is_back
            && !stronger
            && alike(columns, &alone, a, b) <= ALIKE_MAX
        {
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

    /// Whether a value of its column is one of those that stay.
    fn has(&self, column: &Column, code: u32) -> bool {
        column.counts.get(code as usize).is_some_and(|count| *count <= self.count_max)
    }

    /// Others that agree with a record, on average.
    fn shared(&self) -> f64 {
        self.coincidence() * self.all
    }
}

/// How often records that agree on `a`, on a usual value, agree on `b`, where both have both.
fn given(a: &Column, usual: &Usual, b: &Column) -> f64 {
    let cells = a.codes.iter().zip(&b.codes);
    let cells = cells.filter(|(code, other)| usual.has(a, **code) && **other != NONE);
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

/// Of what pairs that agree on the column `a`, on a usual value, could agree on beside it and `b`,
/// the part in which they do, in bits; 1 where nothing else is known of them. Each record is asked
/// beside one other.
fn alike(columns: &[Column], alone: &[f64], a: usize, b: usize) -> f64 {
    let of = &columns[a];
    let usual = Usual::of(of);
    let cells = of.codes.iter().copied().zip(0..).filter(|(code, _)| usual.has(of, *code));
    let mut cells: Vec<(u32, usize)> = cells.collect();
    cells.par_sort_unstable();
    let least = 1.0 / of.codes.len().max(2) as f64;
    let others: Vec<(&Column, f64)> = columns
        .iter()
        .zip(alone)
        .enumerate()
        .filter(|(at, _)| *at != a && *at != b)
        .map(|(_, (column, alone))| (column, -alone.clamp(least, 1.0).log2()))
        .collect();
    let (mut known, mut agreed) = (0.0, 0.0);
    for value in cells.chunk_by(|x, y| x.0 == y.0).filter(|value| value.len() > 1) {
        for (at, (_, one)) in value.iter().enumerate() {
            // Another one, near and far ones alike.
            let ahead = 1 + at.wrapping_mul(SCATTER) % (value.len() - 1);
            let (_, other) = value[(at + ahead) % value.len()];
            for (column, bits) in &others {
                let (one, other) = (column.codes[*one], column.codes[other]);
                if one != NONE && other != NONE {
                    known += bits;
                    agreed += if one == other { *bits } else { 0.0 };
                }
            }
        }
    }
    if known > 0.0 { agreed / known } else { 1.0 }
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

    fn columns(records: u32, names: [&str; 4], says: impl Fn(u32, u32) -> String) -> Vec<Column> {
        let order: Vec<u32> = (0..records).collect();
        let column = |(at, name): (u32, &str)| {
            let mut gatherer = Gatherer::default();
            (0..records).for_each(|record| gatherer.push(Some(&says(record, at))));
            gatherer.finish(name, Declared::Text, Some(Kind::Name), &order, &[])
        };
        (0..).zip(names).map(column).collect()
    }

    /// What is written otherwise in a tenth of the records, of each column in others.
    fn slip(record: u32, at: u32) -> &'static str {
        if (record * 7 + at * 3).is_multiple_of(10) { "x" } else { "" }
    }

    #[test]
    fn many_records_of_one_person_make_no_column_follow() {
        for each in [3_u32, 12, 100] {
            let said = |record: u32, at: u32| match at {
                0 => format!("first{}{}", record / each * 7919 % 40, slip(record, at)),
                _ => format!("{at} of {}{}", record / each, slip(record, at)),
            };
            let columns = columns(3_000, ["first_name", "last_name", "street", "card"], said);
            assert_eq!(dependences(&columns), [], "{each}");
        }
        // Beside them a town follows from its postcode all the same.
        let said = |record: u32, at: u32| match at {
            0 => format!("first{}{}", record / 12 % 37, slip(record, at)),
            1 => format!("card {}{}", record / 12, slip(record, at)),
            2 => format!("{}{}", 10_000 + record / 12 % 20, slip(record, at)),
            _ => format!("town {}{}", record / 12 % 20 / 2, slip(record, at)),
        };
        let columns = columns(6_000, ["first_name", "card", "postcode", "town"], said);
        let found = dependences(&columns);
        assert_eq!(found, [Dependence { on: 2, level: 5, column: 3 }]);
    }

    /// Three records of two persons, of whom few have another value than nearly all.
    #[test]
    fn what_nearly_all_say_is_no_reason_for_columns_to_follow() {
        let said = |record: u32, at: u32| match (at, record % 2_000 % 25) {
            (3, 0) => format!("firm of {}", record % 2_000),
            (3, _) => "privat".into(),
            (0, _) => format!("first{}", record % 2_000 * 7919 % 40),
            _ => format!("{at} of {}", record % 2_000),
        };
        let columns = columns(3_000, ["first_name", "last_name", "email", "company"], said);
        assert_eq!(dependences(&columns), []);
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
