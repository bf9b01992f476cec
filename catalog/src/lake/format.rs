//! The file formats of lake tables, and the options that each one takes.
//!
//! A format is named (`STORED AS PARQUET`) or told by a file's extension; `.gz`, `.bz2`, `.xz` and
//! `.zst` after the extension of a text file mean that it is compressed. Options have several
//! spellings, because readers of other engines bring theirs; an unknown one is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use datafusion::common::config::CsvOptions;
use datafusion::common::config::JsonOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::avro::AvroFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, nearest};

/// How the files of a table are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Text with separated values, with or without a header.
    Csv,
    /// One JSON object a line (NDJSON).
    Json,
    /// Avro object container files.
    Avro,
    /// Arrow IPC, the file form and the stream form.
    Arrow,
    /// A Delta table; opened by the Delta reader, not by this module.
    Delta,
}

impl Format {
    /// The extensions that belong to the format, lower case and without the dot.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Parquet => &["parquet", "parq", "pq"],
            Self::Csv => &["csv", "tsv"],
            Self::Json => &["json", "ndjson", "jsonl"],
            Self::Avro => &["avro"],
            Self::Arrow => &["arrow", "arrows", "ipc", "feather"],
            Self::Delta => &[],
        }
    }

    /// Tells the format by a file's name: `orders.parquet`, `clicks.CSV.gz`.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let (plain, compression) = split_compression(&name);
        let extension = plain.rsplit_once('.')?.1;
        let all = [Self::Parquet, Self::Csv, Self::Json, Self::Avro, Self::Arrow];
        let found = all.into_iter().find(|format| format.extensions().contains(&extension))?;
        let compressed = compression != CompressionTypeVariant::UNCOMPRESSED;
        (!compressed || found.is_text()).then_some(found)
    }

    /// Whether the files are text, so that they may be compressed as a whole.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Json)
    }

    fn option_names(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Parquet => &[("binary_as_string", "binary_as_string")],
            Self::Csv => &[
                ("has_header", "has_header"),
                ("header", "has_header"),
                ("delimiter", "delimiter"),
                ("delim", "delimiter"),
                ("sep", "delimiter"),
                ("quote", "quote"),
                ("escape", "escape"),
                ("comment", "comment"),
                ("terminator", "terminator"),
                ("null_value", "null_value"),
                ("null", "null_value"),
                ("nullstr", "null_value"),
                ("newlines_in_values", "newlines_in_values"),
                ("multiline", "newlines_in_values"),
                ("truncated_rows", "truncated_rows"),
                ("sample_rows", "sample_rows"),
                ("schema_infer_max_rec", "sample_rows"),
                ("compression", "compression"),
            ],
            Self::Json => &[
                ("sample_rows", "sample_rows"),
                ("schema_infer_max_rec", "sample_rows"),
                ("compression", "compression"),
            ],
            Self::Avro | Self::Arrow | Self::Delta => &[],
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Parquet => "Parquet",
            Self::Csv => "CSV",
            Self::Json => "JSON",
            Self::Avro => "Avro",
            Self::Arrow => "Arrow",
            Self::Delta => "Delta",
        })
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_lowercase().as_str() {
            "parquet" => Ok(Self::Parquet),
            "csv" | "tsv" => Ok(Self::Csv),
            "json" | "ndjson" | "jsonl" => Ok(Self::Json),
            "avro" => Ok(Self::Avro),
            "arrow" | "ipc" | "feather" => Ok(Self::Arrow),
            "delta" | "deltatable" => Ok(Self::Delta),
            other => {
                let known = ["parquet", "csv", "json", "avro", "arrow", "delta"];
                let hint = nearest(other, known).map_or_else(
                    || "the formats are PARQUET, CSV, JSON, AVRO, ARROW and DELTA".into(),
                    |near| format!("did you mean {}?", near.to_uppercase()),
                );
                Err(Error::invalid_hint(format!("{text} is no format that Attune reads"), hint))
            }
        }
    }
}

/// A table's options, parsed and checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub format: Format,
    /// Whether the delimiter was given; otherwise `.tsv` files have a tab.
    delimiter_given: bool,
    csv: CsvOptions,
    sample_rows: usize,
    /// A text that stands for NULL in a CSV file, besides the empty field.
    pub null_value: Option<String>,
    compression: Option<CompressionTypeVariant>,
    file_extension: Option<String>,
    binary_as_string: bool,
}

/// Rows of a text file that are read to tell its columns' types, when no option says otherwise.
const SAMPLE_ROWS_DEFAULT: usize = 1_000;

impl Settings {
    /// Checks a table's options.
    ///
    /// # Errors
    /// When an option is unknown to the format, or its value is not allowed.
    pub fn parse(format: Format, options: &BTreeMap<String, String>) -> Result<Self> {
        let mut settings = Self {
            format,
            delimiter_given: false,
            csv: CsvOptions::default(),
            sample_rows: SAMPLE_ROWS_DEFAULT,
            null_value: None,
            compression: None,
            file_extension: None,
            binary_as_string: false,
        };
        settings.csv.has_header = Some(true);
        settings.csv.newlines_in_values = Some(false);
        for (name, value) in options {
            settings.set(name, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let lower = name.to_lowercase();
        // DataFusion's CREATE EXTERNAL TABLE puts `format.` before an option without a prefix.
        let key = lower.strip_prefix("format.").unwrap_or(&lower);
        let names = self.format.option_names();
        let canonical = match names.iter().find(|(spelling, _)| *spelling == key) {
            Some((_, canonical)) => *canonical,
            None if key == "file_extension" => "file_extension",
            None => return Err(unknown_option(self.format, name, key)),
        };
        match canonical {
            "has_header" => self.csv.has_header = Some(boolean(name, value)?),
            "delimiter" => {
                self.csv.delimiter = byte(name, value)?;
                self.delimiter_given = true;
            }
            "quote" => self.csv.quote = byte(name, value)?,
            "escape" => self.csv.escape = optional_byte(name, value)?,
            "comment" => self.csv.comment = optional_byte(name, value)?,
            "terminator" => self.csv.terminator = optional_byte(name, value)?,
            "null_value" => self.null_value = Some(value.to_owned()).filter(|v| !v.is_empty()),
            "newlines_in_values" => self.csv.newlines_in_values = Some(boolean(name, value)?),
            "truncated_rows" => self.csv.truncated_rows = Some(boolean(name, value)?),
            "sample_rows" => self.sample_rows = rows(name, value)?,
            "compression" => self.compression = compression(name, value)?,
            "binary_as_string" => self.binary_as_string = boolean(name, value)?,
            _ => self.file_extension = Some(value.trim_start_matches('.').to_lowercase()),
        }
        Ok(())
    }

    /// Whether a file of this name belongs to a table that is a folder.
    pub fn accepts(&self, name: &str) -> bool {
        if name.starts_with(['_', '.']) {
            return false;
        }
        match &self.file_extension {
            Some(wanted) if wanted.is_empty() => true,
            Some(wanted) => name.to_lowercase().ends_with(&format!(".{wanted}")),
            None => Format::from_file_name(name) == Some(self.format),
        }
    }

    /// Which files a person should have put there, for messages.
    pub fn wanted(&self) -> String {
        match &self.file_extension {
            Some(extension) if !extension.is_empty() => format!(".{extension}"),
            _ => self.format.to_string(),
        }
    }

    /// Whether the first line of a CSV file holds the columns' names.
    pub fn has_header(&self) -> bool {
        self.csv.has_header.unwrap_or(true)
    }

    /// Rows of a text file that are read to tell its columns' types.
    pub fn sample_rows(&self) -> usize {
        self.sample_rows
    }

    /// How a file is compressed: as the option says, otherwise as its name says.
    pub fn compression_of(&self, name: &str) -> CompressionTypeVariant {
        if !self.format.is_text() {
            return CompressionTypeVariant::UNCOMPRESSED;
        }
        self.compression.unwrap_or_else(|| split_compression(&name.to_lowercase()).1)
    }

    /// The CSV dialect of a file.
    pub fn csv_options(&self, name: &str) -> CsvOptions {
        let mut options = self.csv.clone();
        options.compression = self.compression_of(name);
        options.schema_infer_max_rec = Some(self.sample_rows);
        let lower = name.to_lowercase();
        if !self.delimiter_given && split_compression(&lower).0.ends_with(".tsv") {
            options.delimiter = b'\t';
        }
        options
    }

    /// DataFusion's format for one file of this name.
    pub fn file_format(&self, name: &str) -> Arc<dyn FileFormat> {
        match self.format {
            Format::Csv => Arc::new(self.csv_format(name)),
            Format::Json => {
                let options = JsonOptions {
                    compression: self.compression_of(name),
                    schema_infer_max_rec: Some(self.sample_rows),
                    ..JsonOptions::default()
                };
                Arc::new(JsonFormat::default().with_options(options))
            }
            Format::Avro => Arc::new(AvroFormat),
            Format::Arrow => Arc::new(ArrowFormat),
            Format::Parquet | Format::Delta => Arc::new(self.parquet_format()),
        }
    }

    /// DataFusion's CSV format for one file of this name.
    pub fn csv_format(&self, name: &str) -> CsvFormat {
        let mut options = self.csv_options(name);
        options.null_regex = self.null_value.as_deref().map(null_regex);
        CsvFormat::default().with_options(options)
    }

    fn parquet_format(&self) -> ParquetFormat {
        let mut format = ParquetFormat::default().with_binary_as_string(self.binary_as_string);
        let mut options = format.options().clone();
        options.global.reorder_filters = true;
        options.global.enable_page_index = true;
        format = format.with_options(options);
        format
    }
}

/// A regular expression that matches the NULL text or nothing at all, and only as a whole.
fn null_regex(text: &str) -> String {
    let mut pattern = String::from("^(?:");
    for character in text.chars() {
        // Exactly the characters with a meaning; `\\<` and others would gain one by a backslash.
        if "\\.+*?()|[]{}^$#&-~".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push_str(")?$");
    pattern
}

fn split_compression(name: &str) -> (&str, CompressionTypeVariant) {
    let suffixes = [
        (".gz", CompressionTypeVariant::GZIP),
        (".bz2", CompressionTypeVariant::BZIP2),
        (".xz", CompressionTypeVariant::XZ),
        (".zst", CompressionTypeVariant::ZSTD),
    ];
    for (suffix, variant) in suffixes {
        if let Some(plain) = name.strip_suffix(suffix) {
            return (plain, variant);
        }
    }
    (name, CompressionTypeVariant::UNCOMPRESSED)
}

/// A file's name without the extensions that say its format and compression.
pub(crate) fn stem(name: &str) -> &str {
    let lower = name.to_lowercase();
    // Lower-casing may change a name's length in bytes, so the suffix is measured, not the stem.
    let (plain, _) = split_compression(&lower);
    let compression_bytes = lower.len() - plain.len();
    let whole = name.get(..name.len().saturating_sub(compression_bytes)).unwrap_or(name);
    whole.rsplit_once('.').map_or(whole, |(stem, _)| stem)
}

fn unknown_option(format: Format, name: &str, key: &str) -> Error {
    let known: Vec<&str> = format
        .option_names()
        .iter()
        .map(|(spelling, _)| *spelling)
        .chain(["file_extension"])
        .collect();
    let hint = nearest(key, known.iter().copied()).map_or_else(
        || format!("the options of {format} are {}", known.join(", ")),
        |near| format!("did you mean {near}?"),
    );
    Error::invalid_hint(format!("{name} is no option of a {format} table"), hint)
}

fn boolean(name: &str, value: &str) -> Result<bool> {
    match value.trim().to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "t" => Ok(true),
        "false" | "no" | "off" | "0" | "f" => Ok(false),
        _ => Err(Error::invalid_hint(
            format!("the option {name} is true or false, not {value}"),
            format!("write '{name}' 'true'"),
        )),
    }
}

fn byte(name: &str, value: &str) -> Result<u8> {
    match value {
        "\\t" | "tab" | "TAB" => Ok(b'\t'),
        "\\n" => Ok(b'\n'),
        "\\r" => Ok(b'\r'),
        "\\0" => Ok(0),
        _ => match value.as_bytes() {
            [one] if one.is_ascii() => Ok(*one),
            _ => Err(Error::invalid_hint(
                format!("the option {name} is one ASCII character, not {value}"),
                "write \\t for a tab",
            )),
        },
    }
}

fn optional_byte(name: &str, value: &str) -> Result<Option<u8>> {
    if value.is_empty() { Ok(None) } else { byte(name, value).map(Some) }
}

fn rows(name: &str, value: &str) -> Result<usize> {
    match value.trim().parse::<usize>() {
        Ok(rows) if rows <= 10_000_000 => Ok(rows),
        _ => Err(Error::invalid_hint(
            format!("the option {name} is a number of rows, not {value}"),
            "0 reads every column as text; the default is 1000",
        )),
    }
}

fn compression(name: &str, value: &str) -> Result<Option<CompressionTypeVariant>> {
    match value.trim().to_lowercase().as_str() {
        "auto" => Ok(None),
        "none" | "uncompressed" => Ok(Some(CompressionTypeVariant::UNCOMPRESSED)),
        "gzip" | "gz" => Ok(Some(CompressionTypeVariant::GZIP)),
        "bzip2" | "bz2" => Ok(Some(CompressionTypeVariant::BZIP2)),
        "xz" => Ok(Some(CompressionTypeVariant::XZ)),
        "zstd" | "zst" => Ok(Some(CompressionTypeVariant::ZSTD)),
        _ => Err(Error::invalid_hint(
            format!("the option {name} cannot be {value}"),
            "it is auto, none, gzip, bzip2, xz or zstd",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_extension_tells_the_format() {
        assert_eq!(Format::from_file_name("a.parquet"), Some(Format::Parquet));
        assert_eq!(Format::from_file_name("a.b.CSV.GZ"), Some(Format::Csv));
        assert_eq!(Format::from_file_name("a.ndjson.zst"), Some(Format::Json));
        assert_eq!(Format::from_file_name("a.parquet.gz"), None);
        assert_eq!(Format::from_file_name("README"), None);
        assert_eq!(stem("Orders 2024.csv.gz"), "Orders 2024");
        assert_eq!(stem("İstanbul.parquet"), "İstanbul");
        assert_eq!(stem("x"), "x");
    }

    #[test]
    fn an_unknown_format_or_option_is_refused_with_the_nearest() {
        let error = "parqet".parse::<Format>().unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean PARQUET?");
        let error = Settings::parse(Format::Csv, &options(&[("delimeter", ";")])).unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean delimiter?");
        let error = Settings::parse(Format::Parquet, &options(&[("delimiter", ";")])).unwrap_err();
        assert!(error.to_string().contains("delimiter"), "{error}");
    }

    #[test]
    fn csv_options_have_several_spellings() {
        let settings = Settings::parse(
            Format::Csv,
            &options(&[("format.HEADER", "no"), ("sep", "\\t"), ("null", "N/A")]),
        )
        .unwrap();
        assert!(!settings.has_header());
        assert_eq!(settings.csv_options("x.csv").delimiter, b'\t');
        assert_eq!(null_regex("N/A"), "^(?:N/A)?$");
        assert_eq!(null_regex("(\\N)"), "^(?:\\(\\\\N\\))?$");
        for bad in [("quote", "ab"), ("quote", "é"), ("has_header", "maybe"), ("sample_rows", "-1")]
        {
            assert!(Settings::parse(Format::Csv, &options(&[bad])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hidden_and_foreign_files_do_not_belong() {
        let settings = Settings::parse(Format::Csv, &BTreeMap::new()).unwrap();
        assert!(settings.accepts("a.csv") && settings.accepts("a.TSV.gz"));
        assert!(!settings.accepts("_SUCCESS") && !settings.accepts(".a.csv.crc"));
        assert!(!settings.accepts("a.parquet") && !settings.accepts("README"));
        let any = Settings::parse(Format::Csv, &options(&[("file_extension", "")])).unwrap();
        assert!(any.accepts("part-00000"));
    }
}
