//! What is left of a person in files: in the bytes as they lie, and in what they hold when decoded.
//!
//! A text is looked for as it is, in lower and upper case, as JSON writes it (within another JSON
//! text too), in hexadecimal, and in base64 wherever it begins; a number as text and in the eight
//! bytes of either order. Parquet files, which tables, models and checkpoints of logs consist of,
//! are searched page by page once decompressed, dictionaries included, and value by value as Arrow
//! reads them; statistics stand in the footer, which is not compressed.

use std::path::Path;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// What a Parquet file begins and ends with.
const PARQUET: &[u8] = b"PAR1";
/// A shorter form is in any bytes by chance.
const FORM_BYTES_MIN: usize = 6;

/// What is looked for.
pub struct Remnants {
    /// Each form, and what it is a form of.
    forms: Vec<(Vec<u8>, String)>,
    /// The forms that begin with each byte.
    by_first: Vec<Vec<usize>>,
}

impl Remnants {
    /// The forms of texts and numbers.
    pub fn of(texts: &[&str], numbers: &[i64]) -> Self {
        let mut forms = Vec::new();
        for text in texts {
            forms.extend(forms_of(text).into_iter().map(|form| (form, (*text).to_owned())));
        }
        for number in numbers {
            let text = number.to_string();
            for form in [number.to_le_bytes(), number.to_be_bytes()] {
                forms.push((form.to_vec(), text.clone()));
            }
            forms.extend(forms_of(&text).into_iter().map(|form| (form, text.clone())));
        }
        forms.sort();
        forms.dedup_by(|one, other| one.0 == other.0);
        let mut by_first = vec![Vec::new(); 256];
        for (at, (form, _)) in forms.iter().enumerate() {
            assert!(form.len() >= FORM_BYTES_MIN, "{form:?} is too short to be looked for");
            by_first[usize::from(form[0])].push(at);
        }
        Self { forms, by_first }
    }

    /// What is found in bytes that are called `what`, once each.
    pub fn within(&self, what: &str, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            for form in &self.by_first[usize::from(*byte)] {
                let (form, of) = &self.forms[*form];
                if bytes[at..].starts_with(form) {
                    found.push(format!("{of} in {what}"));
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// What is found in the files of a folder, in their names, bytes and values.
    pub fn below(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let Ok(entries) = std::fs::read_dir(folder) else { return found };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = path.display().to_string();
            found.extend(self.within(&format!("the name {name}"), name.as_bytes()));
            if path.is_dir() {
                found.extend(self.below(&path));
            } else if let Ok(content) = std::fs::read(&path) {
                found.extend(self.within(&name, &content));
                if content.starts_with(PARQUET) && content.ends_with(PARQUET) {
                    found.extend(self.decoded(&name, Bytes::from(content)));
                }
            }
        }
        found
    }

    fn decoded(&self, name: &str, content: Bytes) -> Vec<String> {
        let mut found = Vec::new();
        let reader = SerializedFileReader::new(content.clone()).unwrap();
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).unwrap();
            for column in 0..group.num_columns() {
                let mut pages = group.get_column_page_reader(column).unwrap();
                while let Some(page) = pages.get_next_page().unwrap() {
                    let what = format!("a page of column {column} of {name}");
                    found.extend(self.within(&what, page.buffer()));
                }
            }
        }
        let options = FormatOptions::default();
        let batches = ParquetRecordBatchReaderBuilder::try_new(content).unwrap().build().unwrap();
        for batch in batches {
            let batch = batch.unwrap();
            for (column, field) in batch.columns().iter().zip(batch.schema().fields()) {
                let values = ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
                let values = (0..batch.num_rows()).map(|row| values.value(row).to_string());
                let values: Vec<String> = values.collect();
                let what = format!("the values of {} of {name}", field.name());
                found.extend(self.within(&what, values.join("\n").as_bytes()));
            }
        }
        found
    }
}

fn forms_of(text: &str) -> Vec<Vec<u8>> {
    let json = |text: &str| {
        let written = serde_json::Value::from(text).to_string();
        written[1..written.len() - 1].to_owned()
    };
    let once = json(text);
    let mut forms = vec![
        text.to_owned(),
        text.to_lowercase(),
        text.to_uppercase(),
        once.clone(),
        json(&once),
        text.bytes().map(|byte| format!("{byte:02x}")).collect(),
    ];
    forms.extend((0..3).flat_map(|start| in_base64(text, start)));
    forms.into_iter().map(String::into_bytes).collect()
}

/// A text in base64 where `start` other bytes precede it in its group of three: without the digits
/// in which it shares bits with what stands before and behind it.
fn in_base64(text: &str, start: usize) -> [String; 2] {
    let bytes = [vec![0; start], text.as_bytes().to_vec()].concat();
    let first = (8 * start).div_ceil(6);
    let end = 8 * bytes.len() / 6;
    [BASE64_STANDARD_NO_PAD.encode(&bytes), BASE64_URL_SAFE_NO_PAD.encode(&bytes)]
        .map(|encoded| encoded[first..end].to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};

    use super::*;

    const NAME: &str = "Änn \"Anna\" O'Gone";
    const NUMBER: i64 = 4_711_081_590_210_815;

    #[test]
    fn every_form_is_found() {
        let remnants = Remnants::of(&[NAME], &[NUMBER]);
        let json = serde_json::json!({ "name": NAME }).to_string();
        let nested = serde_json::json!({ "stats": json }).to_string();
        let mut texts = vec![NAME.to_owned(), NAME.to_lowercase(), json, nested];
        texts.push(NUMBER.to_string());
        for before in ["", "a", "ab", "abc"] {
            texts.push(BASE64_STANDARD.encode(format!("{before}{NAME}, and more")));
            texts.push(BASE64_URL_SAFE.encode(format!("{before}{NUMBER}")));
        }
        for text in texts {
            let found = remnants.within("a text", format!("…{text}…").as_bytes());
            assert_eq!(found.len(), 1, "{text}: {found:?}");
        }
        assert_eq!(remnants.within("bytes", &NUMBER.to_le_bytes()).len(), 1);
        let others = ["Ann \"Anna\" O'Gone", "4711081590210816", "", "QSBib2R5"];
        assert!(others.iter().all(|text| remnants.within("a text", text.as_bytes()).is_empty()));
    }

    #[test]
    fn what_a_compressed_file_holds_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nested").join("part.parquet");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let names = (0..1_000).map(|row| if row == 700 { NAME } else { "Bob" });
        let names: ArrayRef = Arc::new(names.map(Some).collect::<StringArray>());
        let numbers: ArrayRef =
            Arc::new((0..1_000).map(|row| NUMBER - 500 + row).collect::<Int64Array>());
        let batch = RecordBatch::try_from_iter([("name", names), ("number", numbers)]).unwrap();
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let found = Remnants::of(&[NAME], &[NUMBER]).below(folder.path());
        for value in [NAME.to_owned(), NUMBER.to_string()] {
            let of = format!("{value} in the values of");
            assert!(found.iter().any(|found| found.starts_with(&of)), "{value}: {found:?}");
        }
        assert!(found.iter().any(|found| found.contains("in a page of column 0")), "{found:?}");
        assert!(
            Remnants::of(&["nobody at all"], &[NUMBER + 5_000]).below(folder.path()).is_empty()
        );
    }
}
