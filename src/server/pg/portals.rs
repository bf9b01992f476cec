//! Portals: statements with their values, and results that are read bit by bit.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::StreamExt;
use sql::Answer;

use super::cells::{Column, Rows};
use super::problem::{Problem, Stop};
use super::statements::Statement;
use super::values;

/// A statement with its values.
#[derive(Debug)]
pub struct Portal {
    /// The statement.
    pub statement: Arc<Statement>,
    /// One value a parameter.
    pub values: Vec<ScalarValue>,
    /// The columns as they are sent.
    pub columns: Vec<Column>,
    /// How far it is.
    pub progress: Progress,
}

/// How far a portal is.
pub enum Progress {
    /// Not begun.
    Ready,
    /// Its rows are being read.
    Rows(Box<Running>),
    /// All was sent.
    Done,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Ready => "Ready",
            Self::Rows(_) => "Rows",
            Self::Done => "Done",
        })
    }
}

/// A result that is being read.
pub struct Running {
    answer: Answer,
    /// The batch that is being sent, and the row to send next.
    pub batch: Option<(Rows, usize)>,
}

impl Running {
    /// The rows of an answer.
    pub fn new(answer: Answer) -> Self {
        Self { answer, batch: None }
    }

    /// The next batch; `None` after the last.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, Stop> {
        Ok(self.answer.rows.next().await.transpose()?)
    }
}

impl Portal {
    /// A statement without parameters, in text form.
    pub fn plain(statement: Arc<Statement>) -> Self {
        let columns = statement.columns(&[]);
        Self { statement, values: Vec::new(), columns, progress: Progress::Ready }
    }

    /// A statement with the values and formats of a client's message.
    ///
    /// # Errors
    /// When their numbers or types do not fit.
    pub fn bind(
        statement: Arc<Statement>,
        formats: &[i16],
        values: &[Option<Bytes>],
        results: &[i16],
    ) -> Result<Self, Stop> {
        let wanted = statement.wanted();
        let count = wanted.fields().len();
        if values.len() != count {
            let what = format!("the statement has {count} parameters, {} are bound", values.len());
            return Err(Problem::new("08P01", what).into());
        }
        let binary = formats_for(formats, count)?;
        let declared = |index: usize| statement.declared.get(index).copied().unwrap_or(0);
        let mut bound = Vec::with_capacity(count);
        for (index, value) in values.iter().enumerate() {
            let field = wanted.field(index).data_type();
            bound.push(values::value(value.as_ref(), binary[index], declared(index), field)?);
        }
        let mut columns = statement.columns(&bound);
        let binary = formats_for(results, columns.len())?;
        for (column, binary) in columns.iter_mut().zip(binary) {
            column.binary = binary;
        }
        Ok(Self { statement, values: bound, columns, progress: Progress::Ready })
    }
}

/// Whether each of `count` values is in binary form: none named means text, one means all.
fn formats_for(formats: &[i16], count: usize) -> Result<Vec<bool>, Problem> {
    if formats.iter().any(|format| !matches!(format, 0 | 1)) {
        return Err(Problem::new("08P01", "a format is neither text (0) nor binary (1)"));
    }
    match formats {
        [] => Ok(vec![false; count]),
        [one] => Ok(vec![*one == 1; count]),
        each if each.len() == count => Ok(each.iter().map(|format| *format == 1).collect()),
        each => {
            let what = format!("{} formats are given for {count} values", each.len());
            Err(Problem::new("08P01", what))
        }
    }
}

/// The portals by their names.
#[derive(Debug, Default)]
pub struct Portals(HashMap<String, Portal>);

impl Portals {
    /// Keeps a portal; the unnamed one replaces the one before.
    ///
    /// # Errors
    /// When the name is taken, or when there are as many as there may be.
    pub fn keep(&mut self, name: String, portal: Portal, held_max: usize) -> Result<(), Problem> {
        if !name.is_empty() && self.0.contains_key(&name) {
            return Err(Problem::new("42P03", format!("portal \"{name}\" already exists")));
        }
        if !name.is_empty() && self.0.len() >= held_max {
            let what = format!("this connection keeps {held_max} portals already");
            return Err(Problem::new("54000", what).hint("close some"));
        }
        self.0.insert(name, portal);
        Ok(())
    }

    /// Takes a portal out, to run it.
    ///
    /// # Errors
    /// When there is none.
    pub fn take(&mut self, name: &str) -> Result<Portal, Problem> {
        self.0.remove(name).ok_or_else(|| missing(name))
    }

    /// Puts a portal back.
    pub fn put_back(&mut self, name: String, portal: Portal) {
        self.0.insert(name, portal);
    }

    /// A portal by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, name: &str) -> Result<&Portal, Problem> {
        self.0.get(name).ok_or_else(|| missing(name))
    }

    /// Forgets a portal.
    pub fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether a result is half read.
    pub fn has_running(&self) -> bool {
        self.0.values().any(|portal| matches!(portal.progress, Progress::Rows(_)))
    }
}

fn missing(name: &str) -> Problem {
    Problem::new("34000", format!("portal \"{name}\" does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_for_all_or_for_each() {
        assert_eq!(formats_for(&[], 2).unwrap(), [false, false]);
        assert_eq!(formats_for(&[1], 2).unwrap(), [true, true]);
        assert_eq!(formats_for(&[0, 1], 2).unwrap(), [false, true]);
        assert!(formats_for(&[0, 1], 3).is_err() && formats_for(&[2], 1).is_err());
    }
}
