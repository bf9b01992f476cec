//! What was released of anonymized rows, so that the next release tells no more than it may.
//!
//! Whoever holds two releases of one table sees what has come and gone between them: where that is
//! fewer than k rows of a class, both being k-anonymous does not help. Small steps add up, so all
//! releases count, not the last one alone: those under a name, which is its maker's, and those of
//! each table that is read, whoever makes them and whatever they are called. On record are keyed
//! tokens of classes and rows, and since which release a row is there how often. The next release
//! is recorded, or refused, before a row of it is given.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use udfs::privacy::subject_token::hexadecimal;

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::change::{Step, TRIES, held};
use crate::registry::{Head, ObjectName, Registry, Spec};

/// Different rows of one release: all are in one document.
pub const ROWS_MAX: usize = 200_000;
/// Releases unlike each other that are kept of a name or of a table.
pub const RELEASES_MAX: usize = 1_000;
/// Numbers of rows that are kept of all of them: one a row, and one more for each release that has
/// another number of it.
pub const CHANGES_MAX: usize = 400_000;
/// Characters of a token that are kept: no two of 2²⁰ rows meet by chance.
const TOKEN_CHARS: usize = 16;
/// What the tokens of releases are of: no subject has a line feed in its name.
const DOMAIN: &str = "\nrelease";

/// A release, as keyed tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// Its columns and their levels; none of a release without rows.
    pub form: Option<String>,
    /// The fewest rows of a class that it was made with.
    pub k: u32,
    /// Of each class, how many rows are alike in all that is shown.
    pub classes: BTreeMap<String, BTreeMap<String, u64>>,
}

/// All releases of a name or of a table, those that are alike once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releases {
    /// The form of all that have rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    form: Option<String>,
    /// The k of each.
    ks: Vec<u32>,
    /// Of each row of each class: from which release on it is there how often.
    classes: BTreeMap<String, Rows>,
}

/// The rows of a class: of each, from which release on it is there how often.
type Rows = BTreeMap<String, Vec<(u32, u64)>>;

/// Why a release may not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its columns or levels are others: then its classes are parts of another one's, or the other
    /// way round, and nobody knows what the two tell together.
    OtherForm,
    /// So many classes differ from an earlier release's by one row or more and by fewer than k.
    Few {
        /// How many classes.
        classes: usize,
        /// The greater k of the two.
        k: u32,
    },
    /// There are as many releases, or changes between them, as are kept.
    Full,
}

/// A release that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The table of whose releases one is in the way; none: one of the same name is.
    pub of: Option<ObjectName>,
    /// Why.
    pub why: Why,
}

/// What makes the tokens of releases: the same of the same rows, so that releases are compared
/// whoever makes them.
#[derive(Debug, Clone)]
pub struct ReleaseTokens(udfs::privacy::SubjectTokens);

impl ReleaseTokens {
    /// The token of a text.
    pub fn token(&self, text: &str) -> String {
        let mut token = hexadecimal(&self.0.token(DOMAIN, text));
        token.truncate(TOKEN_CHARS);
        token
    }
}

/// How an earlier release and the next one differ.
#[derive(Debug, Clone, Copy, Default)]
struct Difference {
    differs: bool,
    /// Classes of which a few rows have come or gone.
    few: usize,
}

impl Releases {
    /// Which of these releases the next one is like, if any; or why it may not be made.
    fn followed_by(&self, next: &Release) -> Result<Option<usize>, Why> {
        if let (Some(form), Some(other)) = (&self.form, &next.form)
            && form != other
        {
            return Err(Why::OtherForm);
        }
        let mut differences = vec![Difference::default(); self.ks.len()];
        let (no_rows, none) = (Rows::new(), BTreeMap::new());
        let new = next.classes.keys().filter(|class| !self.classes.contains_key(*class));
        for class in self.classes.keys().chain(new) {
            let before = self.classes.get(class).unwrap_or(&no_rows);
            let after = next.classes.get(class).unwrap_or(&none);
            self.compare(before, after, next.k, &mut differences);
        }
        let worst = differences.iter().zip(&self.ks).max_by_key(|(found, _)| found.few);
        if let Some((found, k)) = worst
            && found.few > 0
        {
            return Err(Why::Few { classes: found.few, k: next.k.max(*k) });
        }
        Ok(differences.iter().position(|found| !found.differs))
    }

    /// Adds how a class of each release differs from that of the next one.
    fn compare(
        &self,
        before: &Rows,
        after: &BTreeMap<String, u64>,
        next_k: u32,
        differences: &mut [Difference],
    ) {
        let (mut come, mut gone) = (0, 0);
        let mut steps = steps(before, after).into_iter().peekable();
        while let Some((from, (more_come, more_gone))) = steps.next() {
            come += more_come;
            gone += more_gone;
            if come == 0 && gone == 0 {
                continue;
            }
            let to = steps.peek().map_or(usize::MAX, |(next, _)| *next as usize);
            let until = differences.iter_mut().zip(&self.ks).take(to);
            for (found, k) in until.skip(from as usize) {
                let few = 1..i128::from(next_k.max(*k));
                found.differs = true;
                found.few += usize::from(few.contains(&come) || few.contains(&gone));
            }
        }
    }

    /// Adds a release, which may be like one of these. Whether there was room.
    fn add(&mut self, next: &Release, like: Option<usize>) -> bool {
        if let Some(k) = like.and_then(|at| self.ks.get_mut(at)) {
            *k = next.k.max(*k);
            return true;
        }
        let Ok(at) = u32::try_from(self.ks.len()) else { return false };
        if self.form.is_none() {
            self.form.clone_from(&next.form);
        }
        self.ks.push(next.k);
        for (class, rows) in &mut self.classes {
            let after = next.classes.get(class);
            for (row, counts) in rows {
                let now = after.and_then(|after| after.get(row)).copied().unwrap_or_default();
                if counts.last().is_none_or(|(_, count)| *count != now) {
                    counts.push((at, now));
                }
            }
        }
        for (class, rows) in &next.classes {
            let known = self.classes.entry(class.clone()).or_default();
            for (row, count) in rows {
                known.entry(row.clone()).or_insert_with(|| vec![(at, *count)]);
            }
        }
        let changes: usize = self.classes.values().flat_map(BTreeMap::values).map(Vec::len).sum();
        self.ks.len() <= RELEASES_MAX && changes <= CHANGES_MAX
    }
}

/// From which release on so many more rows of a class have come, and so many more have gone, until
/// the next one.
fn steps(before: &Rows, after: &BTreeMap<String, u64>) -> BTreeMap<u32, (i128, i128)> {
    let mut steps: BTreeMap<u32, (i128, i128)> = BTreeMap::new();
    let mut step = |from: u32, had: u64, has: u64, sign: i128| {
        let (come, gone) = steps.entry(from).or_default();
        *come += sign * i128::from(has.saturating_sub(had));
        *gone += sign * i128::from(had.saturating_sub(has));
    };
    for (row, counts) in before {
        let has = after.get(row).copied().unwrap_or_default();
        let mut had = 0;
        step(0, had, has, 1);
        for (from, count) in counts {
            step(*from, had, has, -1);
            step(*from, *count, has, 1);
            had = *count;
        }
    }
    for (_, has) in after.iter().filter(|(row, _)| !before.contains_key(*row)) {
        step(0, 0, *has, 1);
    }
    steps
}

impl Catalog {
    /// What makes the tokens of releases.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or, to make the key, not written.
    pub async fn release_tokens(&self) -> Result<ReleaseTokens> {
        Ok(ReleaseTokens(self.subject_tokens().await?))
    }

    /// Records a release under its maker's name, and of each table that it is made of, where it
    /// may follow all that are on record there. A table that holds copied ids of persons counts as
    /// the tables that they came from as well. Gives why it was refused.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or the releases before cannot be read: then none may
    /// be made.
    pub async fn record_release(
        &self,
        maker: &str,
        name: &str,
        tables: &BTreeSet<ObjectName>,
        release: &Release,
    ) -> Result<Option<Refused>> {
        self.writable().await?;
        let mut of = tables.clone();
        for table in tables {
            let copied = self.copies_in_now(table).await?.into_iter();
            of.extend(copied.filter(|copy| !copy.of_model).map(|copy| copy.root.table));
        }
        let named = ObjectName::new(maker, name);
        // All are asked before one is written, so that a refused release is nowhere on record.
        for writes in [false, true] {
            let why = follow(&self.releases, &named, maker, release, writes).await?;
            if let Some(why) = why {
                return Ok(Some(Refused { of: None, why }));
            }
            for table in &of {
                let why = follow(&self.table_releases, table, maker, release, writes).await?;
                if let Some(why) = why {
                    return Ok(Some(Refused { of: Some(table.clone()), why }));
                }
            }
        }
        Ok(None)
    }
}

/// Asks whether a release may follow those of a document, and `writes` it there; or gives why not.
async fn follow(
    registry: &Registry,
    place: &ObjectName,
    maker: &str,
    release: &Release,
    writes: bool,
) -> Result<Option<Why>> {
    let step = |head: Option<&Head>| {
        let mut releases = releases(head)?;
        let like = match releases.followed_by(release) {
            Ok(like) => like,
            Err(why) => return Ok::<_, Error>(Step::Stays(Some(why))),
        };
        let is_known = like.and_then(|at| releases.ks.get(at)).is_some_and(|k| *k >= release.k);
        if is_known {
            return Ok(Step::Stays(None));
        }
        if !releases.add(release, like) {
            return Ok(Step::Stays(Some(Why::Full)));
        }
        Ok(match writes {
            true => Step::writes(Some(Spec::Releases(releases)), maker.to_owned(), None),
            false => Step::Stays(None),
        })
    };
    registry.change(place, TRIES, || format!("the releases of {place}"), step).await
}

fn releases(head: Option<&Head>) -> Result<Releases> {
    match held(head)? {
        None => Ok(Releases::default()),
        Some(Spec::Releases(releases)) => Ok(releases),
        Some(_) => Err(Error::Corrupt {
            what: "the record of releases".into(),
            reason: "it holds something else".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::subject_copies::CopiedKey;
    use crate::subjects::SubjectKey;
    use crate::testing::Shared;

    /// A release of classes, each its rows and how often each is there.
    fn release(k: u32, classes: &[(&str, &[(&str, u64)])]) -> Release {
        let rows = |rows: &[(&str, u64)]| {
            rows.iter().map(|(row, count)| ((*row).to_owned(), *count)).collect()
        };
        let classes = classes.iter().map(|(class, of)| ((*class).to_owned(), rows(of)));
        Release { form: Some("f".into()), k, classes: classes.collect() }
    }

    /// All of some releases.
    fn all(of: &[&Release]) -> Releases {
        let mut releases = Releases::default();
        for release in of {
            let like = releases.followed_by(release).unwrap();
            assert!(releases.add(release, like));
        }
        releases
    }

    #[test]
    fn what_comes_and_goes_is_nothing_or_as_many_as_a_class() {
        let first = release(3, &[("a", &[("flu", 2), ("cold", 2)]), ("b", &[("flu", 5)])]);
        let one = all(&[&first]);
        let follows = |classes: &[(&str, &[(&str, u64)])]| one.followed_by(&release(3, classes));
        let few = |classes| Err(Why::Few { classes, k: 3 });
        assert_eq!(one.followed_by(&first), Ok(Some(0)));
        // Three more, five fewer, and a class that is gone.
        let b: (&str, &[(&str, u64)]) = ("b", &[("flu", 5)]);
        assert_eq!(follows(&[("a", &[("flu", 5), ("cold", 2)]), b]), Ok(None));
        assert_eq!(follows(&[b]), Ok(None));
        assert_eq!(follows(&[b, ("c", &[("flu", 3)])]), Ok(None));
        // One more; and one that came for another, of whom the sizes tell nothing.
        assert_eq!(follows(&[("a", &[("flu", 3), ("cold", 2)]), b]), few(1));
        assert_eq!(follows(&[("a", &[("flu", 3), ("cold", 1)]), b]), few(1));
        assert_eq!(follows(&[("a", &[("flu", 1), ("cold", 2)]), ("b", &[("flu", 4)])]), few(2));
        // The greater k of the two counts.
        let stricter = release(6, &[("a", &[("flu", 2), ("cold", 2)])]);
        assert_eq!(one.followed_by(&stricter), Err(Why::Few { classes: 1, k: 6 }));
        let coarser = Release { form: Some("g".into()), ..first.clone() };
        assert_eq!(one.followed_by(&coarser), Err(Why::OtherForm));
        let nothing = Release { k: 3, ..Release::default() };
        assert_eq!(one.followed_by(&nothing), Ok(None));
        // A release without rows has any form, and those before it have theirs.
        assert_eq!(all(&[&first, &nothing]).followed_by(&coarser), Err(Why::OtherForm));
        assert_eq!(all(&[&nothing, &coarser]).followed_by(&first), Err(Why::OtherForm));
    }

    #[test]
    fn small_steps_do_not_add_up() {
        // Five come; then four of these go, and one who was there before.
        let first = release(5, &[("a", &[("ann", 1), ("old", 9)])]);
        let people = [("ann", 1), ("bea", 1), ("cid", 1), ("dan", 1), ("eve", 1), ("fay", 1)];
        let mut rows: Vec<(&str, u64)> = people.into();
        rows.push(("old", 9));
        let second = release(5, &[("a", rows.as_slice())]);
        let third = release(5, &[("a", &[("bea", 1), ("old", 9)])]);
        assert_eq!(all(&[&second]).followed_by(&third), Ok(None));
        let few = Err(Why::Few { classes: 1, k: 5 });
        assert_eq!(all(&[&first, &second]).followed_by(&third), few);
        // What was released before may be again, and stays compared with the greatest k.
        let stricter = Release { k: 6, ..second.clone() };
        assert_eq!(all(&[&first, &second]).followed_by(&first), Ok(Some(0)));
        let few = Err(Why::Few { classes: 1, k: 6 });
        assert_eq!(all(&[&second, &stricter]).followed_by(&third), few);
    }

    #[test]
    fn as_many_are_kept_as_there_is_room_for() {
        let mut releases = Releases { ks: vec![2; RELEASES_MAX], ..Releases::default() };
        assert!(!releases.add(&release(2, &[("a", &[("flu", 2)])]), None));
        assert!(releases.add(&Release { k: 3, ..Release::default() }, Some(0)));
        let rows = (0..=CHANGES_MAX).map(|row| (row.to_string(), 1)).collect();
        let wide = BTreeMap::from([("a".to_owned(), rows)]);
        let wide = Release { form: None, k: 2, classes: wide };
        assert!(!Releases::default().add(&wide, None));
    }

    /// How many rows of a class are in `those` and not in `these`.
    fn more(these: Option<&BTreeMap<String, u64>>, those: Option<&BTreeMap<String, u64>>) -> u64 {
        let count = |row: &str| these.and_then(|rows| rows.get(row)).copied().unwrap_or(0);
        let rows = those.into_iter().flatten();
        rows.map(|(row, has)| has.saturating_sub(count(row.as_str()))).sum()
    }

    /// Whether two releases tell no more together than each by itself.
    fn may_stand_together(one: &Release, other: &Release) -> bool {
        let is_same_form = one.form == other.form || one.form.is_none() || other.form.is_none();
        let k = u64::from(one.k.max(other.k));
        let classes = one.classes.keys().chain(other.classes.keys());
        let is_few = |rows: u64| rows > 0 && rows < k;
        let mut tells = classes.filter(|class| {
            let (these, those) = (one.classes.get(*class), other.classes.get(*class));
            is_few(more(these, those)) || is_few(more(those, these))
        });
        is_same_form && tells.next().is_none()
    }

    fn some_release() -> impl Strategy<Value = Release> {
        let rows = prop::collection::btree_map("[xyz]", 1_u64..6, 1..4);
        let classes = prop::collection::btree_map("[ab]", rows, 0..3);
        (prop_oneof![9 => Just("f"), 1 => Just("g")], 1_u32..5, classes).prop_map(
            |(form, k, classes)| {
                let form = (!classes.is_empty()).then(|| form.to_owned());
                Release { form, k, classes }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_two_releases_on_record_tell_of_a_few(
            made in prop::collection::vec(some_release(), 1..24),
        ) {
            let mut releases = Releases::default();
            let mut given: Vec<Release> = vec![];
            for next in made {
                let follows = releases.followed_by(&next);
                let may = given.iter().all(|before| may_stand_together(before, &next));
                prop_assert_eq!(follows.is_ok(), may);
                let Ok(like) = follows else { continue };
                let is_known = given.iter().any(|before| before.classes == next.classes);
                prop_assert_eq!(like.is_some(), is_known);
                prop_assert!(releases.add(&next, like));
                given.push(next);
                // What is written is read back.
                let spec = Spec::Releases(releases.clone());
                let text = serde_json::to_string(&spec).unwrap();
                prop_assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
            }
        }
    }

    #[tokio::test]
    async fn servers_compare_with_the_same_releases() {
        let shared = Shared::new();
        let (one, two) = (shared.open().await, shared.open().await);
        let first = release(2, &[("a", &[("flu", 2)])]);
        let more = release(2, &[("a", &[("flu", 3)])]);
        let many = release(2, &[("a", &[("flu", 4)])]);
        let none = BTreeSet::new();
        let refused =
            |of: Option<ObjectName>| Some(Refused { of, why: Why::Few { classes: 1, k: 2 } });
        assert_eq!(one.record_release("ann", "v", &none, &first).await.unwrap(), None);
        assert_eq!(two.record_release("ann", "v", &none, &more).await.unwrap(), refused(None));
        // A name is its maker's.
        assert_eq!(two.record_release("bob", "v", &none, &more).await.unwrap(), None);
        assert_eq!(two.record_release("ann", "v", &none, &many).await.unwrap(), None);
        assert_eq!(one.record_release("ann", "v", &none, &more).await.unwrap(), refused(None));
        let token = one.release_tokens().await.unwrap().token("a");
        assert_eq!(token, two.release_tokens().await.unwrap().token("a"));
        assert_ne!(token, one.release_tokens().await.unwrap().token("b"));
        assert_eq!(token.len(), TOKEN_CHARS);
    }

    #[tokio::test]
    async fn a_table_has_one_history_whoever_releases_it_and_from_which_copy() {
        let catalog = Shared::new().open().await;
        let visits = ObjectName::new("main", "visits");
        let other = ObjectName::new("main", "other");
        let copy = ObjectName::new("ann", "mine");
        let tables = |name: &ObjectName| BTreeSet::from([name.clone()]);
        let first = release(2, &[("a", &[("flu", 2)])]);
        let more = release(2, &[("a", &[("flu", 3)])]);
        let refused = |of: &ObjectName| {
            Some(Refused { of: Some(of.clone()), why: Why::Few { classes: 1, k: 2 } })
        };
        let given = catalog.record_release("ann", "v", &tables(&visits), &first).await;
        assert_eq!(given.unwrap(), None);
        let given = catalog.record_release("bob", "w", &tables(&visits), &more).await;
        assert_eq!(given.unwrap(), refused(&visits));
        // Nothing of the refused one is on record, under its name neither.
        let given = catalog.record_release("bob", "w", &tables(&other), &first).await;
        assert_eq!(given.unwrap(), None);
        let given = catalog.record_release("cid", "x", &tables(&copy), &more).await;
        assert_eq!(given.unwrap(), None);
        // Once it is known to hold the persons of the other, it counts as that.
        let key = SubjectKey { table: visits.clone(), column: "patient".into() };
        let copied = CopiedKey {
            subject: "patient".into(),
            column: Some("patient".into()),
            from: key.clone(),
            root: key,
            of_model: false,
            by: Some(vec![]),
            is_whole: true,
        };
        catalog.announce_copies(&copy, &BTreeSet::from([copied])).await.unwrap();
        let given = catalog.record_release("cid", "x", &tables(&copy), &more).await;
        assert_eq!(given.unwrap(), refused(&visits));
    }
}
