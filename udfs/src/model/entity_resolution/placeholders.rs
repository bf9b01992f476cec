//! Placeholders that no list knows: `keine Angabe`, `xxx@firma.de`, a birthday of 1900-01-01.
//!
//! How often two records coincide is the sum of the squares of the values' shares, so that a value
//! in a quarter of the rows is nearly all of it: u of equal values is then that value's, and equal
//! telephone numbers seem to tell four bits rather than ten. Pairs are scored by each value's own
//! frequency, but learned from by u: where it is so in every column, what two records share seems
//! to be chance, λ falls to its least and nothing is linked. Such a value says nothing of a person
//! and counts as none, in comparing and in blocking.
//!
//! It is told from values that are frequent as others are (a sex, a state, a large town) by three
//! signs that must come together: it, or each of a few, has a share of the known values that is
//! many times the share that the next one has among the rest; these are many; and how often they
//! coincide, but for the few records that may be one person's, is little beside what it adds.
//!
//! What was found when a model learned stays as it is from version to version: what has become so
//! frequent since counts as a value, as it did when u and the kept pairs' levels were found.

use std::cmp::Reverse;

use super::column::{Column, NONE};
use super::key::fingerprint;
use super::records::Records;

/// The share of the known values that each has at least.
const SHARE_MIN: f64 = 0.05;
/// How many times the share that the next value has among the rest.
const GAP_MIN: f64 = 20.0;
/// Different values that the rest has at least, and its share of the known ones: slips of the pen
/// are few.
const OTHERS_MIN: f64 = 50.0;
const OTHERS_SHARE_MIN: f64 = 0.1;
/// How likely two of the rest coincide at most, beside two records with placeholders.
const COINCIDENCE_MAX: f64 = 0.01;
/// Records with one value that may be one person's.
const PERSON_MAX: f64 = 4.0;

/// Columns with values that are so frequent, and the share of the records that have them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placeholders {
    /// Of those that count as none.
    pub set_aside: Vec<(String, f64)>,
    /// Of those that have become so frequent since the model learned, and count as values.
    pub since: Vec<(String, f64)>,
}

impl Placeholders {
    /// Those of records, of a version that goes on from another or not.
    pub(super) fn of(records: &Records, goes_on: bool) -> Self {
        let share = |count: u32| f64::from(count) / records.len.max(1) as f64;
        let columns = records.columns.iter();
        let set_aside = columns.clone().filter(|column| column.set_aside > 0);
        let since = columns.filter(|_| goes_on).filter_map(|column| {
            let found = frequent(&column.counts);
            let counts = found.iter().filter_map(|&code| column.counts.get(code as usize));
            let count: u32 = counts.sum();
            (count > 0).then(|| (column.name.clone(), share(count)))
        });
        Self {
            set_aside: set_aside
                .map(|column| (column.name.clone(), share(column.set_aside)))
                .collect(),
            since: since.collect(),
        }
    }
}

impl Column {
    /// Takes placeholders as no values: those that are `known` by their fingerprints, or those that
    /// are found where nothing has been learned yet.
    pub(super) fn leave_out_placeholders(&mut self, known: Option<&[u64]>) {
        let codes: Vec<u32> = match known {
            Some([]) => Vec::new(),
            Some(known) => {
                let values = self.values.iter().zip(0..);
                let is_known = |value: &str| known.contains(&fingerprint(value, 0));
                values.filter(|(value, _)| is_known(value)).map(|(_, code)| code).collect()
            }
            None => frequent(&self.counts),
        };
        self.placeholders = match known {
            Some(known) => known.to_vec(),
            None => codes.iter().map(|&code| fingerprint(self.values.get(code), 0)).collect(),
        };
        if codes.is_empty() {
            return;
        }
        for code in &mut self.codes {
            if codes.contains(code) {
                *code = NONE;
                self.set_aside += 1;
            }
        }
        self.count();
    }
}

/// The codes of the values that are too frequent to be anybody's, the most frequent first, by how
/// many records have each value.
fn frequent(counts: &[u32]) -> Vec<u32> {
    let mut others = Others::default();
    counts.iter().for_each(|&count| others.add(count, 1.0));
    let known = others.records;
    let least = (SHARE_MIN * known).max(1.0);
    let is_large = |count: u32| f64::from(count) >= least;
    let mut large: Vec<(u32, u32)> =
        counts.iter().copied().zip(0..).filter(|(count, _)| is_large(*count)).collect();
    large.sort_unstable_by_key(|&(count, code)| (Reverse(count), code));
    let largest_of_small = counts.iter().copied().filter(|count| !is_large(*count)).max();
    let mut coincidence = 0.0;
    for (at, &(count, _)) in large.iter().enumerate() {
        others.add(count, -1.0);
        let share = f64::from(count) / known;
        coincidence += share * share;
        let next = large.get(at + 1).map(|next| next.0).or(largest_of_small).unwrap_or(0);
        let is_rest = others.records >= OTHERS_SHARE_MIN * known;
        if is_rest && others.leave_apart(share, coincidence, next) {
            return large.iter().take(at + 1).map(|(_, code)| *code).collect();
        }
    }
    Vec::new()
}

/// The values but for the most frequent ones.
#[derive(Default)]
struct Others {
    records: f64,
    values: f64,
    /// Pairs of records with one value, each twice, but for those that may be one person's.
    shared: f64,
}

impl Others {
    /// Adds a value, or takes it away again, that so many records have.
    fn add(&mut self, count: u32, sign: f64) {
        let count = f64::from(count);
        self.records += sign * count;
        self.values += sign * count.min(1.0);
        self.shared += sign * count * (count - PERSON_MAX).max(0.0);
    }

    /// Whether the values that are not among these stand apart: the least frequent of them has this
    /// share of all, two records have one of them with this probability, and so many the next.
    fn leave_apart(&self, share: f64, coincidence: f64, next: u32) -> bool {
        let records = self.records;
        self.values >= OTHERS_MIN
            && share * records >= GAP_MIN * f64::from(next)
            && self.shared <= COINCIDENCE_MAX * coincidence * records * records
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::Gatherer;
    use super::super::kind::{Declared, Kind};
    use super::super::model::EntityModel;
    use super::super::tests::{COLUMNS, Row, measure, resolved};
    use super::super::train::Resolved;
    use super::*;
    use crate::model::random::Seeded;

    /// What stands for nothing in each column, and no list knows.
    const NOBODY: [&str; 6] =
        ["keine", "angabe fehlt", "nicht bekannt", "030 5550000", "xxx@firma.de", "1900-01-01"];

    /// Some counts, and as many values of one record each.
    fn counts(first: &[u32], ones: usize) -> Vec<u32> {
        first.iter().copied().chain(std::iter::repeat_n(1, ones)).collect()
    }

    #[test]
    fn values_that_stand_out_are_found() {
        assert_eq!(frequent(&counts(&[250], 750)), [0]);
        // Those before and after it are of persons with some records each.
        assert_eq!(frequent(&counts(&[3, 4, 250, 2], 741)), [2]);
        assert_eq!(frequent(&counts(&[280, 300], 1000)), [1, 0]);
        // Surnames, of which some are frequent.
        let surnames: Vec<u32> =
            [2500, 60, 45, 40].into_iter().chain(std::iter::repeat_n(12, 200)).collect();
        assert_eq!(frequent(&counts(&surnames, 4955)), [0]);
    }

    #[test]
    fn values_that_are_frequent_as_others_are_stay() {
        for (first, ones) in [
            // A sex, and slips of the pen.
            (vec![500, 480], 20),
            (vec![50_000, 48_000], 2_000),
            // States.
            (vec![3500, 2500, 2000, 800, 700, 100, 50], 100),
            // A country where nearly all live.
            (vec![9000, 300, 200], 500),
            // A town with a fifth, and those that are next to it in size.
            (vec![2000, 180, 140, 100, 80, 60], 7440),
            // First names: what is in a fifth of the rows is not all that coincides.
            (std::iter::once(2000).chain(std::iter::repeat_n(40, 200)).collect(), 0),
            // Few rows, a value in a few of many, and one in all of them.
            (vec![5], 15),
            (vec![40], 960),
            (vec![1000], 0),
            (vec![], 0),
        ] {
            assert_eq!(frequent(&counts(&first, ones)), [] as [u32; 0], "{first:?}");
        }
    }

    fn column(kind: Kind, values: &[&str], known: Option<&[u64]>) -> Column {
        let mut gatherer = Gatherer::default();
        values.iter().for_each(|value| gatherer.push(Some(value)));
        let order: Vec<u32> = (0..values.len() as u32).collect();
        let mut column = gatherer.finish("c", Declared::Text, Some(kind), &order, &[]);
        column.leave_out_placeholders(known);
        column
    }

    #[test]
    fn a_placeholder_is_no_value_then_and_in_later_versions() {
        let names: Vec<String> = (0..300).map(|at| format!("name {at}")).collect();
        let mut said: Vec<&str> = names.iter().map(String::as_str).collect();
        said.extend(["Keine Angabe"; 100]);
        let found = column(Kind::Name, &said, None);
        assert_eq!((found.set_aside, found.missing()), (100, 0.25));
        assert_eq!(found.placeholders.len(), 1);
        assert_eq!(found.coincidence(), 0.0);
        // What has become rare stays none, and what has become frequent stays a value.
        let later = column(Kind::Name, &said[..301], Some(found.placeholders.as_slice()));
        assert_eq!((later.set_aside, &later.placeholders), (1, &found.placeholders));
        let other = column(Kind::Name, &said, Some(&[]));
        assert_eq!((other.set_aside, other.missing()), (0, 0.0));
    }

    #[test]
    fn a_number_that_is_nobodys_is_no_part_of_the_deviation() {
        let numbers: Vec<String> = (0..300).map(|at| at.to_string()).collect();
        let mut said: Vec<&str> = numbers.iter().map(String::as_str).collect();
        said.extend(["-1e300"; 100]);
        let found = column(Kind::Number, &said, None);
        assert_eq!(found.set_aside, 100);
        // Of 0 to n − 1 it is √((n² − 1) / 12).
        let expected = (89_999.0_f64 / 12.0).sqrt();
        assert!((found.deviation - expected).abs() < 1e-9, "{}", found.deviation);
    }

    /// People of whom a fifth is there twice, half of these with a slip.
    fn people(count: usize, seed: u64) -> Vec<Row> {
        const SYLLABLES: [&str; 20] = [
            "ba", "chen", "dor", "el", "fi", "gra", "hof", "in", "jan", "kru", "lin", "man", "nov",
            "os", "pet", "rich", "schu", "tam", "vog", "zim",
        ];
        let mut random = Seeded::new(seed);
        let mut rows: Vec<Row> = Vec::new();
        for person in 0..count {
            let mut pick = |of: usize| random.below(of as u64) as usize;
            let mut word = || [(); 3].map(|()| SYLLABLES[pick(20)]).concat();
            let (first, last, street) = (word(), word(), word());
            let said = [
                first.clone(),
                last.clone(),
                format!("{} {street} street", 1 + pick(200)),
                format!("0{} {}", 100 + pick(900), 1_000_000 + pick(9_000_000)),
                format!("{first}.{last}{}@example.org", pick(1000)),
                format!("{}-{:02}-{:02}", 1940 + pick(65), 1 + pick(12), 1 + pick(28)),
            ];
            let times = if pick(5) == 0 { 2 } else { 1 };
            for time in 0..times {
                let mut said = said.clone();
                if time > 0 && pick(2) == 0 {
                    // A letter more than there was, in the middle of what is no date.
                    let slip = &mut said[pick(5)];
                    slip.insert(slip.len() / 2, '7');
                }
                rows.push((rows.len() as i64, format!("p{person}"), said.map(Some)));
            }
        }
        rows
    }

    /// The same where a cell in four says what stands for nothing.
    fn with_placeholders(mut rows: Vec<Row>, seed: u64) -> Vec<Row> {
        let mut random = Seeded::new(seed);
        for (cell, nobody) in rows.iter_mut().flat_map(|row| row.2.iter_mut().zip(NOBODY)) {
            if random.below(4) == 0 {
                *cell = Some(nobody.to_owned());
            }
        }
        rows
    }

    fn entities(model: &EntityModel) -> &[u128] {
        &model.parts().entities
    }

    /// Of two records of a person each says a little more than half of what is compared in both.
    #[test]
    fn people_are_found_where_a_quarter_of_each_column_says_nothing() {
        let rows = with_placeholders(people(1000, 1), 2);
        let found = resolved(&rows, None, 1);
        let names: Vec<&str> =
            found.placeholders.set_aside.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, COLUMNS);
        let mut shares = found.placeholders.set_aside.iter().map(|(_, share)| share);
        assert!(shares.all(|share| (0.2..0.3).contains(share)), "{:?}", found.placeholders);
        assert!(measure(&found, "precision") > 0.95, "{:?}", found.measures);
        assert!(measure(&found, "recall") > 0.75, "{:?}", found.measures);
    }

    #[test]
    fn where_there_are_none_nothing_is_left_out() {
        let found = resolved(&people(600, 3), None, 1);
        assert_eq!(found.placeholders, Placeholders::default());
        let comparisons = &found.model.parts().linkage.comparisons;
        assert!(comparisons.iter().all(|comparison| comparison.placeholders.is_empty()));
    }

    #[test]
    fn a_version_that_goes_on_treats_values_as_the_one_before() {
        let rows = with_placeholders(people(500, 4), 5);
        let old = &rows[..450];
        let first = resolved(old, None, 1);
        assert_eq!(first.placeholders.set_aside.len(), 6);
        let second = resolved(&rows, Some(&first), 2);
        assert_eq!(second.kept, Some(old.len()));
        let learned = |found: &Resolved| found.model.parts().linkage.comparisons.clone();
        assert_eq!(learned(&second), learned(&first));
        assert_eq!(second.placeholders.set_aside.len(), 6);
        assert!(second.placeholders.since.is_empty(), "{:?}", second.placeholders);
    }

    /// What becomes frequent later counts as it did, and the pairs that there were stay.
    #[test]
    fn a_value_that_becomes_frequent_later_is_told_and_breaks_nothing() {
        let old = people(500, 6);
        let first = resolved(&old, None, 1);
        let mut rows = old.clone();
        // Two hundred more, all of whom say one e-mail address.
        for (at, mut row) in people(200, 7).into_iter().take(200).enumerate() {
            row.0 = 100_000 + at as i64;
            row.1 = format!("new {}", row.1);
            row.2[4] = Some(NOBODY[4].to_owned());
            rows.push(row);
        }
        let second = resolved(&rows, Some(&first), 2);
        assert_eq!(second.kept, Some(old.len()));
        assert!(second.placeholders.set_aside.is_empty(), "{:?}", second.placeholders);
        let since = &second.placeholders.since;
        assert!(matches!(&since[..], [(name, _)] if name == "email"), "{since:?}");
        let (was, is) = (entities(&first.model), entities(&second.model));
        let same = was.iter().zip(is).filter(|(was, is)| was == is).count();
        assert!(same + 5 >= old.len(), "{same} of {}", old.len());
        assert!(measure(&second, "precision") > 0.95, "{:?}", second.measures);
    }
}
