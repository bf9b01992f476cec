//! What is told of a file that cannot be read to somebody who does not see all of its table: not
//! the folders `key=value` that it lies in, which hold values of its rows, nor what it is called.
//! The log keeps where it is.

use std::error::Error as StdError;

use catalog::Error as CatalogError;
use datafusion::error::DataFusionError;

use crate::error::Error;

/// An error from below a guard, without the folders of values that it names.
pub(super) fn untold(error: DataFusionError) -> DataFusionError {
    match in_chain(&error) {
        Some(told) => told.into(),
        None => error,
    }
}

/// The error of a table that cannot be opened, without the folders of values that it names.
pub(super) fn untold_of_table(error: Error) -> Error {
    let told = match &error {
        Error::Catalog(of_file) => without_folders(of_file),
        _ => None,
    };
    told.map_or(error, Error::Catalog)
}

/// The catalog's error inside another one, where it names such folders.
fn in_chain(error: &DataFusionError) -> Option<CatalogError> {
    if let DataFusionError::ObjectStore(inner) = error.find_root() {
        return without_folders(&CatalogError::store("the store", inner));
    }
    let mut link: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = link {
        if let Some(of_file) = current.downcast_ref::<CatalogError>() {
            return without_folders(of_file);
        }
        link = current.source();
    }
    None
}

/// The same error, without folders of values; `None` where it names none.
fn without_folders(error: &CatalogError) -> Option<CatalogError> {
    let mut told = error.clone();
    let texts = match &mut told {
        CatalogError::File { url, reason } | CatalogError::Store { url, reason, .. } => {
            vec![url, reason]
        }
        CatalogError::Clash { url, other, .. } => vec![url, other],
        CatalogError::Empty { url, .. } => vec![url],
        CatalogError::Conflict { name } => vec![name],
        _ => return None,
    };
    let mut is_changed = false;
    for text in texts {
        if let Some(end) = folders_begin(text) {
            text.truncate(end);
            text.push('…');
            is_changed = true;
        }
    }
    is_changed.then(|| {
        tracing::warn!(code = error.code(), %error, "of a table of which not all is shown");
        told
    })
}

/// Where the first folder of values begins in a URL, or in a sentence that names a path.
fn folders_begin(text: &str) -> Option<usize> {
    let mut at = 0;
    for part in text.split_inclusive('/') {
        if let Some((before, _)) = part.split_once('=') {
            let word = before.rfind(' ').filter(|_| at == 0).map_or(0, |space| space + 1);
            return text.contains('/').then_some(at + word);
        }
        at += part.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn folders_of_values_are_not_told_wherever_the_error_is() {
        let url = "s3://lake/visits/day=2024-01-02/hidden.parquet";
        let of_file = || CatalogError::File {
            url: url.into(),
            reason: format!("Object at location {url} not found"),
        };
        let clash = CatalogError::Clash {
            url: url.into(),
            column: "n".into(),
            found: "Utf8".into(),
            expected: "Int64".into(),
            other: url.into(),
        };
        for error in [
            DataFusionError::from(of_file()),
            DataFusionError::from(clash),
            DataFusionError::Shared(Arc::new(DataFusionError::from(of_file()).context("a scan"))),
        ] {
            let told = Error::from(untold(error));
            let text = told.to_string();
            assert!(text.contains("s3://lake/visits/…"), "{text}");
            assert!(!text.contains("2024") && !text.contains("hidden"), "{text}");
            assert!(told.code().starts_with("ATT-500"), "{}", told.code());
        }
        let told = untold_of_table(Error::Catalog(of_file())).to_string();
        assert!(told.starts_with("cannot read s3://lake/visits/…: "), "{told}");
    }

    #[test]
    fn a_folder_of_values_is_found_where_a_path_begins() {
        for (text, expected) in [
            ("s3://lake/t/day=1/a.csv", Some("s3://lake/t/")),
            ("day=1/a.csv", Some("")),
            ("Object at location day=1/a.csv not found", Some("Object at location ")),
            ("s3://lake/t/a.csv", None),
            ("expected x=1", None),
        ] {
            assert_eq!(folders_begin(text).and_then(|end| text.get(..end)), expected, "{text}");
        }
    }

    #[test]
    fn other_errors_stay() {
        let plain = CatalogError::File {
            url: "s3://lake/visits/a.parquet".into(),
            reason: "Corrupt footer".into(),
        };
        let text = untold_of_table(Error::Catalog(plain)).to_string();
        assert_eq!(text, "cannot read s3://lake/visits/a.parquet: Corrupt footer");
        let limit = DataFusionError::ResourcesExhausted("a/b=c".into());
        assert!(untold(limit).to_string().contains("a/b=c"));
    }
}
