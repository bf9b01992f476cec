//! How many different values a group has, where a unit adds only so many.
//!
//! Units come one after another, and each covers the values of its own that nobody before it
//! covers: at most `values_max` of them, the first in the order of the values. What is counted is
//! the covered values; noise for a sum of up to `values_max` then makes the count private.
//!
//! Let the units come in one order, without one of them in the other data set, and let C and C'
//! be what is covered with it and without it. Then C' lies in C, and C has at most `values_max`
//! more: before the unit both are the same, and behind it they differ by what it covered. Of the
//! values S of a later unit, S outside of C lies in S outside of C'. Where the latter are no more
//! than `values_max`, both data sets cover all of S, and nothing is added to the difference. Where
//! they are more, C' grows by exactly `values_max`, and C by no more, so that the difference does
//! not grow; and each value that C' takes is among the first of S outside of C', hence, unless C
//! has it already, among the first of S outside of C, and C takes it too. So the count changes by
//! at most `values_max`, whichever unit is taken out. (Neither the order of units nor that of
//! values may depend on who else is there.)
//!
//! It is the greedy form of the matching of Knop, Steinke: "Counting Distinct Elements Under
//! Person-Level Differential Privacy", 2023, and covers at least half of what the best choice of
//! values would.

use std::collections::HashSet;

/// The values that units have covered.
#[derive(Clone, Debug, Default)]
pub struct Covered {
    values: HashSet<Box<[u8]>>,
}

impl Covered {
    /// Covers up to `values_max` of a unit's values, which come in any order and any number of
    /// times. Gives the bytes of those that are new.
    pub fn cover(&mut self, mut values: Vec<&[u8]>, values_max: usize) -> usize {
        values.sort_unstable();
        let (mut taken, mut bytes) = (0, 0);
        for value in values {
            if taken >= values_max {
                break;
            }
            if !self.values.contains(value) {
                self.values.insert(value.into());
                taken += 1;
                bytes += value.len();
            }
        }
        bytes
    }

    /// How many values are covered.
    pub fn count(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Unit = Vec<u8>;

    fn covered(units: &[Unit], values_max: usize, without: Option<usize>) -> HashSet<Box<[u8]>> {
        let mut covered = Covered::default();
        for (at, unit) in units.iter().enumerate() {
            if without != Some(at) {
                covered.cover(unit.chunks(1).collect(), values_max);
            }
        }
        covered.values
    }

    /// Gives a value a seat that its unit has free, or can free.
    fn place(
        value: u8,
        units: &[Unit],
        seats: &[usize],
        holds: &mut [Option<u8>],
        seen: &mut [bool],
    ) -> bool {
        for (seat, unit) in seats.iter().enumerate() {
            if seen[seat] || !units[*unit].contains(&value) {
                continue;
            }
            seen[seat] = true;
            let free = match holds[seat] {
                None => true,
                Some(other) => place(other, units, seats, holds, seen),
            };
            if free {
                holds[seat] = Some(value);
                return true;
            }
        }
        false
    }

    /// The most values that can be covered, each by one of the units that have it: a matching, by
    /// augmenting paths.
    fn best(units: &[Unit], values_max: usize) -> usize {
        let seats: Vec<usize> = (0..units.len()).flat_map(|unit| vec![unit; values_max]).collect();
        let mut holds = vec![None; seats.len()];
        let values: HashSet<u8> = units.iter().flatten().copied().collect();
        let mut placed = 0;
        for value in values {
            let mut seen = vec![false; seats.len()];
            placed += usize::from(place(value, units, &seats, &mut holds, &mut seen));
        }
        placed
    }

    #[test]
    fn each_unit_adds_what_nobody_before_it_has() {
        let mut all = Covered::default();
        let mut cover = |words: &[&str], values_max: usize| {
            all.cover(words.iter().map(|word| word.as_bytes()).collect(), values_max)
        };
        assert_eq!(cover(&["pen", "ink", "pen"], 5), 6);
        assert_eq!(cover(&["pen", "ink"], 5), 0);
        // The first in order of those that are left: of "cap", "map" and "zip" two.
        assert_eq!(cover(&["zip", "pen", "map", "cap"], 2), 6);
        assert_eq!(cover(&["zip"], 1), 3);
        assert_eq!(cover(&["map"], 1), 0);
        assert_eq!(all.count(), 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_unit_changes_the_count_by_no_more_than_it_may(
            units in prop::collection::vec(prop::collection::vec(0_u8..12, 0..8), 1..7),
            values_max in 1_usize..4,
        ) {
            let with = covered(&units, values_max, None);
            for unit in 0..units.len() {
                let without = covered(&units, values_max, Some(unit));
                prop_assert!(without.is_subset(&with));
                prop_assert!(with.len() - without.len() <= values_max);
            }
            let most = best(&units, values_max);
            prop_assert!(with.len() <= most && 2 * with.len() >= most);
        }
    }
}
