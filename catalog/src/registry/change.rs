//! Changing a document that others may change at the same time: it is read, changed, and written
//! over exactly what was read; and all of that again where somebody else was first.

use super::definition::{ObjectName, Spec};
use super::{Head, Registry};
use crate::error::{Error, Result};

/// How often a change is tried where others are first, again and again.
pub(crate) const TRIES: usize = 8;

/// What becomes of a document, and what the change gives.
pub(crate) enum Step<T> {
    /// It stays as it is.
    Stays(T),
    /// This is written, as somebody's; `None` removes it.
    Writes(Box<Option<Spec>>, String, T),
}

impl<T> Step<T> {
    /// A document is written, as somebody's; `None` removes it.
    pub(crate) fn writes(spec: Option<Spec>, owner: String, outcome: T) -> Self {
        Self::Writes(Box::new(spec), owner, outcome)
    }
}

impl Registry {
    /// Changes what is under a name, by what `step` makes of it; `what` is told where others are
    /// first so many times.
    ///
    /// # Errors
    /// Those of `step`; `Conflict` after so many tries; when the store cannot be written.
    pub(crate) async fn change<T, E: From<Error>>(
        &self,
        name: &ObjectName,
        tries: usize,
        what: impl FnOnce() -> String,
        mut step: impl FnMut(Option<&Head>) -> Result<Step<T>, E>,
    ) -> Result<T, E> {
        for _ in 0..tries {
            let head = self.head(name).await?;
            match step(head.as_ref())? {
                Step::Stays(outcome) => return Ok(outcome),
                Step::Writes(spec, owner, outcome) => {
                    match self.put(name, *spec, &owner, head.as_ref()).await {
                        Err(error) if error.is_lost_race() => {}
                        other => return other.map(|_| outcome).map_err(E::from),
                    }
                }
            }
        }
        Err(E::from(Error::Conflict { name: what() }))
    }
}

/// What a head holds; nothing where it was removed.
///
/// # Errors
/// When the document cannot be read.
pub(crate) fn held(head: Option<&Head>) -> Result<Option<Spec>> {
    match head {
        Some(head) => Ok(head.document.clone()?.spec.clone()),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::TableExpectations;
    use crate::testing::Shared;

    #[tokio::test]
    async fn who_is_late_tries_again_and_gives_up_at_last() {
        let shared = Shared::new();
        let (one, other) = (shared.open().await, shared.open().await);
        let name = ObjectName::new("main", "t");
        let spec = || Some(Spec::Expectations(TableExpectations::default()));
        let before = one.expectations.head(&name).await.unwrap();
        assert!(before.is_none());
        other.expectations.put(&name, spec(), "bob", None).await.unwrap();
        let mut seen = Vec::new();
        let changed = one.expectations.change(&name, TRIES, String::new, |head| {
            seen.push(held(head)?.is_some());
            Ok::<_, Error>(Step::writes(None, "ann".into(), 7))
        });
        assert_eq!(changed.await.unwrap(), 7);
        assert_eq!(seen, [true]);
        let stays = |_: Option<&Head>| Ok::<_, Error>(Step::Stays(()));
        one.expectations.change(&name, TRIES, String::new, stays).await.unwrap();
        let none = one.expectations.change(&name, 0, || "it".into(), stays).await;
        assert!(matches!(none, Err(Error::Conflict { name }) if name == "it"));
    }
}
