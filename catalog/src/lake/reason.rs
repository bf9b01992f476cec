//! Errors while reading a file become errors that name the file.
//!
//! The store's and the decoder's errors are the file's; errors of the query's own expressions
//! (a division by zero in a pushed-down filter) and of limits (memory) stay what they are. A
//! message never repeats a value of the file, because a mask may hide the column from the reader
//! of the message.

use datafusion::error::DataFusionError;
use object_store::path::Path;

use super::listing::object_url;
use crate::error::{Error, root_cause};
use crate::store::Place;

/// Whose file it is that cannot be read.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    place: Place,
    path: Path,
    /// Where the part of the file begins that was being read, in bytes.
    start_bytes: u64,
}

impl Subject {
    /// A file, or the part of it that begins at a byte.
    pub fn new(place: &Place, path: &Path, start_bytes: u64) -> Self {
        Self { place: place.clone(), path: path.clone(), start_bytes }
    }

    /// The file's URL.
    pub fn url(&self) -> String {
        object_url(&self.place, &self.path)
    }

    /// The same error, naming the file if it is the file's.
    pub fn name(&self, error: DataFusionError) -> DataFusionError {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => return error,
            root if is_of_the_query(&root.to_string()) => return error,
            _ => {}
        }
        DataFusionError::from(self.explain(&error))
    }

    /// The catalog's error for a failure to read the file.
    pub fn explain(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        let mut link = Some(error);
        while let Some(current) = link {
            if let Some(ours) = current.downcast_ref::<Error>() {
                return self.complete(ours.clone());
            }
            match current.downcast_ref::<object_store::Error>() {
                // A local disk is always reachable: what it says, it says of the file.
                Some(object_store::Error::Generic { .. }) if self.place.is_local() => {}
                // It is not the file that was listed: the next statement lists anew.
                Some(object_store::Error::Precondition { .. }) => {
                    return Error::Conflict { name: self.url() };
                }
                Some(store) => return Error::store(self.url(), store),
                None => {}
            }
            link = current.source();
        }
        Error::File { url: self.url(), reason: self.tidy(&root_cause(error)) }
    }

    /// Puts the file's URL into an error that was made where the file was not known.
    fn complete(&self, error: Error) -> Error {
        match error {
            Error::Clash { url, column, found, expected, other } if url.is_empty() => {
                Error::Clash { url: self.url(), column, found, expected, other }
            }
            Error::File { url, reason } if url.is_empty() => {
                Error::File { url: self.url(), reason }
            }
            other => other,
        }
    }

    fn tidy(&self, message: &str) -> String {
        let reason = without_values(message);
        if self.start_bytes > 0 && reason.contains("line ") {
            // The decoder counts from the part's beginning, not from the file's.
            return format!("{reason} (counted from byte {})", self.start_bytes);
        }
        reason
    }
}

/// Errors that the query's own expressions raise inside a scan.
fn is_of_the_query(message: &str) -> bool {
    ["Error evaluating filter predicate", "Divide by zero", "Arithmetic overflow"]
        .iter()
        .any(|sign| message.contains(sign))
}

/// The decoders' messages without the values that they quote.
fn without_values(message: &str) -> String {
    let message = message.split(" Row data:").next().unwrap_or(message).trim_end_matches('.');
    if let Some(rest) = message.split("Error while parsing value '").nth(1)
        && let Some((_, tail)) = rest.rsplit_once("' as type '")
        && let Some((data_type, place)) = tail.split_once("' for column ")
        && let Some((column, line)) = place.split_once(" at line ")
    {
        // The decoder counts columns and, for this message only, lines from zero.
        let from_one = |text: &str| text.parse::<usize>().map_or(1, |n| n.saturating_add(1));
        let (column, line) = (from_one(column), from_one(line));
        return format!("the value in column {column} of line {line} is not of type {data_type}");
    }
    let mut kept = String::with_capacity(message.len());
    let mut quote = None;
    let mut previous = ' ';
    for character in message.chars() {
        match quote {
            // A quoted text is a value unless it is a type or a name after `field` or `type`.
            Some(open) if character == open => {
                quote = None;
                kept.push('…');
                kept.push(character);
            }
            Some(_) => {}
            None => {
                let opens = matches!(character, '\'' | '"') && !previous.is_alphanumeric();
                let is_name = ["field ", "type ", "column "].iter().any(|s| kept.ends_with(s));
                kept.push(character);
                if opens && !is_name {
                    quote = Some(character);
                }
            }
        }
        previous = character;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_the_place_and_lose_the_value() {
        let csv = "Error while parsing value 'a' as type 'x' as type 'Int64' for column 1 at \
                   line 3. Row data: '[1,secret]'";
        assert_eq!(without_values(csv), "the value in column 2 of line 4 is not of type Int64");
        assert_eq!(
            without_values("incorrect number of fields for line 2, expected 2 got more than 2"),
            "incorrect number of fields for line 2, expected 2 got more than 2"
        );
        assert_eq!(
            without_values("whilst decoding field 'amount': failed to parse \"secret\" as Int64"),
            "whilst decoding field 'amount': failed to parse \"…\" as Int64"
        );
        assert_eq!(
            without_values("Cannot cast string 'secret' to value of Int64 type"),
            "Cannot cast string '…' to value of Int64 type"
        );
        assert_eq!(without_values("can't read 'secret"), "can't read '");
    }

    #[test]
    fn the_querys_own_errors_stay() {
        assert!(is_of_the_query("Arrow error: Divide by zero error"));
        assert!(!is_of_the_query("Parquet error: Invalid Parquet file. Corrupt footer"));
    }
}
