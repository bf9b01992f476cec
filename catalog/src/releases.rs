//! What was released of anonymized rows last, so that the next release tells no more than it may.
//!
//! Whoever holds two releases of one table sees what has come and gone between them: where that is
//! fewer than k rows of a class, both being k-anonymous does not help. So the last release under a
//! name is on record, as keyed tokens of its classes and rows and their numbers, and the next one
//! is recorded, or refused, before a row of it is given. A name belongs to who releases under it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use udfs::privacy::subject_token::hexadecimal;

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::change::{Step, TRIES};
use crate::registry::{Head, ObjectName, Spec};

/// Different rows of one release: all are in one document.
pub const ROWS_MAX: usize = 200_000;
/// Characters of a token that are kept: no two of 2²⁰ rows meet by chance.
const TOKEN_CHARS: usize = 16;

/// A release, as keyed tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its columns and their levels; none of a release without rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// The fewest rows of a class that it was made with.
    pub k: u32,
    /// Of each class, how many rows are alike in all that is shown.
    pub classes: BTreeMap<String, BTreeMap<String, u64>>,
}

/// How a release follows the last one of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// It is the first, or tells no more than it should: it is on record now.
    Recorded,
    /// Its columns or levels are others: then its classes are parts of the last one's, or the other
    /// way round, and nobody knows what the two tell together.
    OtherForm,
    /// So many classes differ from the last release's by one row or more and by fewer than k.
    Few {
        /// How many classes.
        classes: usize,
        /// The greater k of the two.
        k: u32,
    },
}

/// What makes the tokens of one release.
#[derive(Debug, Clone)]
pub struct ReleaseTokens {
    tokens: udfs::privacy::SubjectTokens,
    domain: String,
}

impl ReleaseTokens {
    /// The token of a text.
    pub fn token(&self, text: &str) -> String {
        let mut token = hexadecimal(&self.tokens.token(&self.domain, text));
        token.truncate(TOKEN_CHARS);
        token
    }
}

impl Release {
    /// How `next` follows this one.
    fn followed_by(&self, next: &Self) -> Follows {
        if let (Some(form), Some(other)) = (&self.form, &next.form)
            && form != other
        {
            return Follows::OtherForm;
        }
        let k = self.k.max(next.k);
        let is_few = |rows: u64| (1..u64::from(k)).contains(&rows);
        let none = BTreeMap::new();
        let names = self.classes.keys().chain(next.classes.keys().filter(|name| {
            // Those of both are among the first.
            !self.classes.contains_key(*name)
        }));
        let few = names.filter(|name| {
            let before = self.classes.get(*name).unwrap_or(&none);
            let after = next.classes.get(*name).unwrap_or(&none);
            is_few(more(before, after)) || is_few(more(after, before))
        });
        match few.count() {
            0 => Follows::Recorded,
            classes => Follows::Few { classes, k },
        }
    }
}

/// How many rows there are in `those` that are not in `these`.
fn more(these: &BTreeMap<String, u64>, those: &BTreeMap<String, u64>) -> u64 {
    let more = those
        .iter()
        .map(|(row, count)| count.saturating_sub(these.get(row).copied().unwrap_or_default()));
    more.fold(0, u64::saturating_add)
}

impl Catalog {
    /// What makes the tokens of somebody's release of a name.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or, to make the key, not written.
    pub async fn release_tokens(&self, maker: &str, name: &str) -> Result<ReleaseTokens> {
        let tokens = self.subject_tokens().await?;
        // No subject has a line feed in its name and begins so.
        Ok(ReleaseTokens { tokens, domain: format!("\nrelease\n{maker}\n{name}") })
    }

    /// Records a release in place of the last one of its name, where it may follow that.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or the last release cannot be read: then none may be
    /// made.
    pub async fn record_release(
        &self,
        maker: &str,
        name: &str,
        release: &Release,
    ) -> Result<Follows> {
        self.writable().await?;
        let place = ObjectName::new(maker, name);
        let step = |head: Option<&Head>| {
            if let Some(last) = last(head)? {
                match last.followed_by(release) {
                    Follows::Recorded => {}
                    refused => return Ok::<_, Error>(Step::Stays(refused)),
                }
            }
            let spec = Some(Spec::Release(release.clone()));
            Ok(Step::writes(spec, maker.to_owned(), Follows::Recorded))
        };
        self.releases.change(&place, TRIES, || format!("release {name}"), step).await
    }
}

fn last(head: Option<&Head>) -> Result<Option<Release>> {
    let Some(head) = head else { return Ok(None) };
    match head.document.clone()?.spec.clone() {
        None => Ok(None),
        Some(Spec::Release(release)) => Ok(Some(release)),
        Some(_) => Err(Error::Corrupt {
            what: "the record of a release".into(),
            reason: "it holds something else".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Shared;

    /// A release of classes, each its rows and how often each is there.
    fn release(k: u32, classes: &[(&str, &[(&str, u64)])]) -> Release {
        let rows = |rows: &[(&str, u64)]| {
            rows.iter().map(|(row, count)| ((*row).to_owned(), *count)).collect()
        };
        let classes = classes.iter().map(|(class, of)| ((*class).to_owned(), rows(of)));
        Release { form: Some("f".into()), k, classes: classes.collect() }
    }

    #[test]
    fn what_comes_and_goes_is_nothing_or_as_many_as_a_class() {
        let first = release(3, &[("a", &[("flu", 2), ("cold", 2)]), ("b", &[("flu", 5)])]);
        let follows = |classes: &[(&str, &[(&str, u64)])]| first.followed_by(&release(3, classes));
        let few = |classes| Follows::Few { classes, k: 3 };
        assert_eq!(first.followed_by(&first), Follows::Recorded);
        // Three more, five fewer, and a class that is gone.
        let b: (&str, &[(&str, u64)]) = ("b", &[("flu", 5)]);
        assert_eq!(follows(&[("a", &[("flu", 5), ("cold", 2)]), b]), Follows::Recorded);
        assert_eq!(follows(&[b]), Follows::Recorded);
        assert_eq!(follows(&[b, ("c", &[("flu", 3)])]), Follows::Recorded);
        // One more; and one that came for another, of whom the sizes tell nothing.
        assert_eq!(follows(&[("a", &[("flu", 3), ("cold", 2)]), b]), few(1));
        assert_eq!(follows(&[("a", &[("flu", 3), ("cold", 1)]), b]), few(1));
        assert_eq!(follows(&[("a", &[("flu", 1), ("cold", 2)]), ("b", &[("flu", 4)])]), few(2));
        // The greater k of the two counts.
        let stricter = release(6, &[("a", &[("flu", 2), ("cold", 2)])]);
        assert_eq!(first.followed_by(&stricter), Follows::Few { classes: 1, k: 6 });
        let coarser = Release { form: Some("g".into()), ..first.clone() };
        assert_eq!(first.followed_by(&coarser), Follows::OtherForm);
        let nothing = Release { k: 3, ..Release::default() };
        assert_eq!(first.followed_by(&nothing), Follows::Recorded);
    }

    #[tokio::test]
    async fn servers_compare_with_the_same_last_release() {
        let shared = Shared::new();
        let (one, two) = (shared.open().await, shared.open().await);
        let first = release(2, &[("a", &[("flu", 2)])]);
        let more = release(2, &[("a", &[("flu", 3)])]);
        let many = release(2, &[("a", &[("flu", 4)])]);
        let few = Follows::Few { classes: 1, k: 2 };
        assert_eq!(one.record_release("ann", "v", &first).await.unwrap(), Follows::Recorded);
        assert_eq!(two.record_release("ann", "v", &more).await.unwrap(), few);
        // A name is its maker's.
        assert_eq!(two.record_release("bob", "v", &more).await.unwrap(), Follows::Recorded);
        assert_eq!(two.record_release("ann", "v", &many).await.unwrap(), Follows::Recorded);
        assert_eq!(one.record_release("ann", "v", &more).await.unwrap(), few);
        let token = one.release_tokens("ann", "v").await.unwrap().token("a");
        assert_eq!(token, two.release_tokens("ann", "v").await.unwrap().token("a"));
        assert_ne!(token, one.release_tokens("bob", "v").await.unwrap().token("a"));
        assert_eq!(token.len(), TOKEN_CHARS);
    }
}
