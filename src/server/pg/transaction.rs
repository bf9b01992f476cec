//! Transactions, answered honestly: every statement commits by itself.
//!
//! BEGIN and COMMIT are answered as drivers expect, since nothing is lost by that. What cannot be
//! had is told: a write inside a block is announced to be final, ROLLBACK after one is an error,
//! and so is COMMIT of a block that failed after one. A savepoint can be returned to when nothing
//! was changed since. READ ONLY is kept.

use pgwire::messages::response::TransactionStatus;

use super::problem::Problem;

/// Where a connection stands.
#[derive(Debug, Default)]
pub struct Transaction {
    block: Option<Block>,
}

#[derive(Debug, Default)]
struct Block {
    failed: bool,
    read_only: Option<bool>,
    writes: u64,
    /// Parameters that end with the block, with what they were.
    local: Vec<(String, String)>,
    /// Savepoints, with how many changes there were.
    savepoints: Vec<(String, u64)>,
}

/// A block has at most so many savepoints.
const SAVEPOINTS_MAX: usize = 100;

/// What the end of a block means.
#[derive(Debug)]
pub struct Ended {
    /// The command's tag, or why it cannot be answered so.
    pub answer: Result<&'static str, Problem>,
    /// Parameters that get back what they were.
    pub restore: Vec<(String, String)>,
}

impl Transaction {
    /// As the client is told with each answer.
    pub fn status(&self) -> TransactionStatus {
        match &self.block {
            None => TransactionStatus::Idle,
            Some(block) if block.failed => TransactionStatus::Error,
            Some(_) => TransactionStatus::Transaction,
        }
    }

    /// Whether a block is open, so that its portals stay.
    pub fn is_open(&self) -> bool {
        self.block.is_some()
    }

    /// BEGIN; a second one changes nothing.
    pub fn begin(&mut self, read_only: Option<bool>) {
        let block = self.block.get_or_insert_default();
        block.read_only = read_only.or(block.read_only);
    }

    /// Whether a statement may run now; `read_only` is the session's default.
    ///
    /// # Errors
    /// In a block that failed, and for a change where only reading is allowed.
    pub fn admit(&self, changes: bool, read_only: bool) -> Result<(), Problem> {
        let block = self.block.as_ref();
        if block.is_some_and(|block| block.failed) {
            let what = "the transaction has failed: statements are ignored until its end";
            return Err(Problem::new("25P02", what).hint("send ROLLBACK"));
        }
        let read_only = block.and_then(|block| block.read_only).unwrap_or(read_only);
        if changes && read_only {
            let what = "this transaction is read-only";
            return Err(Problem::new("25006", what).hint("begin it with READ WRITE"));
        }
        Ok(())
    }

    /// SET TRANSACTION READ ONLY or READ WRITE; whether a block is open to take it.
    pub fn set_read_only(&mut self, read_only: bool) -> bool {
        match &mut self.block {
            Some(block) => {
                block.read_only = Some(read_only);
                true
            }
            None => false,
        }
    }

    /// A change was made; what to tell the client of it.
    pub fn wrote(&mut self) -> Option<Problem> {
        let block = self.block.as_mut()?;
        block.writes += 1;
        (block.writes == 1).then(|| {
            let what = "this change is final: each statement commits by itself";
            Problem::new("01000", what).hint("ROLLBACK will not undo it")
        })
    }

    /// A statement failed.
    pub fn failed(&mut self) {
        if let Some(block) = &mut self.block {
            block.failed = true;
        }
    }

    /// A parameter was changed for the block only; false when there is none.
    pub fn keep(&mut self, name: &str, before: String) -> bool {
        match &mut self.block {
            Some(block) => {
                block.local.push((name.to_owned(), before));
                true
            }
            None => false,
        }
    }

    /// SAVEPOINT.
    ///
    /// # Errors
    /// Outside of a transaction.
    pub fn save(&mut self, name: &str) -> Result<(), Problem> {
        let block = self.block.as_mut().ok_or_else(outside)?;
        if block.savepoints.len() >= SAVEPOINTS_MAX {
            return Err(Problem::new("54000", format!("there are {SAVEPOINTS_MAX} savepoints")));
        }
        block.savepoints.push((name.to_owned(), block.writes));
        Ok(())
    }

    /// RELEASE.
    ///
    /// # Errors
    /// When there is no such savepoint.
    pub fn release(&mut self, name: &str) -> Result<(), Problem> {
        let block = self.block.as_mut().ok_or_else(outside)?;
        let place = block.savepoint(name)?;
        block.savepoints.truncate(place);
        Ok(())
    }

    /// ROLLBACK TO.
    ///
    /// # Errors
    /// When there is no such savepoint, or something was changed since.
    pub fn return_to(&mut self, name: &str) -> Result<(), Problem> {
        let block = self.block.as_mut().ok_or_else(outside)?;
        let place = block.savepoint(name)?;
        let since = block.writes - block.savepoints.get(place).map_or(0, |(_, writes)| *writes);
        if since > 0 {
            return Err(cannot_undo(since).hint("each statement commits by itself"));
        }
        block.savepoints.truncate(place + 1);
        block.failed = false;
        Ok(())
    }

    /// COMMIT.
    pub fn commit(&mut self) -> Ended {
        self.end("COMMIT", |block| block.failed)
    }

    /// ROLLBACK.
    pub fn rollback(&mut self) -> Ended {
        self.end("ROLLBACK", |_| true)
    }

    fn end(&mut self, tag: &'static str, undoes: impl Fn(&Block) -> bool) -> Ended {
        let Some(block) = self.block.take() else {
            return Ended { answer: Ok(tag), restore: Vec::new() };
        };
        let undone = undoes(&block);
        let answer = match (undone, block.writes) {
            (true, 1..) => {
                let hint = "each statement commits by itself; the transaction has ended";
                Err(cannot_undo(block.writes).hint(hint))
            }
            (true, 0) => Ok("ROLLBACK"),
            (false, _) => Ok(tag),
        };
        Ended { answer, restore: block.local.into_iter().rev().collect() }
    }
}

impl Block {
    fn savepoint(&self, name: &str) -> Result<usize, Problem> {
        let found = self.savepoints.iter().rposition(|(known, _)| known == name);
        let missing = || Problem::new("3B001", format!("savepoint \"{name}\" does not exist"));
        found.ok_or_else(missing)
    }
}

fn outside() -> Problem {
    Problem::new("25P01", "savepoints are for transactions only").hint("send BEGIN first")
}

fn cannot_undo(writes: u64) -> Problem {
    Problem::new("0A000", format!("{writes} change(s) of this transaction cannot be undone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_blocks_end_as_drivers_expect() {
        let mut transaction = Transaction::default();
        transaction.begin(None);
        assert_eq!(transaction.status(), TransactionStatus::Transaction);
        assert_eq!(transaction.commit().answer.unwrap(), "COMMIT");
        transaction.begin(None);
        transaction.failed();
        assert!(transaction.admit(false, false).is_err());
        assert_eq!(transaction.commit().answer.unwrap(), "ROLLBACK");
        assert_eq!(transaction.rollback().answer.unwrap(), "ROLLBACK");
    }

    #[test]
    fn a_rollback_after_a_change_does_not_pretend() {
        let mut transaction = Transaction::default();
        assert!(transaction.wrote().is_none());
        transaction.begin(None);
        assert!(transaction.wrote().is_some());
        assert!(transaction.wrote().is_none());
        assert!(transaction.rollback().answer.is_err());
        assert_eq!(transaction.status(), TransactionStatus::Idle);
        transaction.begin(None);
        let _ = transaction.wrote();
        transaction.failed();
        assert!(transaction.commit().answer.is_err());
    }

    #[test]
    fn a_savepoint_is_returned_to_when_nothing_changed_since() {
        let mut transaction = Transaction::default();
        assert!(transaction.save("a").is_err());
        transaction.begin(None);
        transaction.save("a").unwrap();
        transaction.failed();
        transaction.return_to("a").unwrap();
        assert_eq!(transaction.status(), TransactionStatus::Transaction);
        let _ = transaction.wrote();
        assert!(transaction.return_to("a").is_err());
        transaction.release("a").unwrap();
        assert!(transaction.release("a").is_err());
    }

    #[test]
    fn read_only_is_kept() {
        let mut transaction = Transaction::default();
        assert!(transaction.admit(true, true).is_err());
        transaction.begin(Some(true));
        assert!(transaction.admit(true, false).is_err());
        assert!(transaction.admit(false, false).is_ok());
        assert!(transaction.set_read_only(false));
        assert!(transaction.admit(true, true).is_ok());
    }
}
