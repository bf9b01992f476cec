//! What a log says of a file that takes another one's place: how many rows it has, and, of columns
//! of which the same was said of the old one, how many are NULL and between which values the others
//! lie.
//!
//! It is taken from the footer, which has nothing of personal columns. Values whose text in a log
//! may be rounded (fractions, timestamps, decimals) are left out: a reader looks into the file.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::DateTime;
use parquet::basic::ConvertedType;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

const DAY_SECONDS: i64 = 24 * 3_600;

/// What is known of a file.
#[derive(Debug, PartialEq)]
pub(crate) struct FileStats {
    rows: usize,
    columns: BTreeMap<String, ColumnStats>,
}

#[derive(Debug, PartialEq)]
struct ColumnStats {
    nulls: Option<u64>,
    bounds: Bounds,
}

/// Between what the values of a column lie.
#[derive(Debug, PartialEq)]
enum Bounds {
    /// There are no values.
    Empty,
    Numbers(i64, i64),
    Days(i32, i32),
    Texts(String, String),
    Unknown,
}

impl FileStats {
    /// Reads a Parquet file's footer.
    pub fn of(content: &Bytes, rows: usize) -> Self {
        let mut columns: BTreeMap<String, ColumnStats> = BTreeMap::new();
        let Ok(file) = SerializedFileReader::new(content.clone()) else {
            return Self { rows, columns };
        };
        for column in file.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            let [name] = column.column_path().parts() else { continue };
            let found = ColumnStats::of(column);
            let merged = match columns.remove(name) {
                Some(before) => before.with(found),
                None => found,
            };
            columns.insert(name.clone(), merged);
        }
        Self { rows, columns }
    }

    /// As a log says it, of columns of which it said so `before`.
    pub fn told(&self, before: Option<&str>) -> String {
        let before: Value =
            before.and_then(|before| serde_json::from_str(before).ok()).unwrap_or_default();
        let was_told = |what: &str, column: &String| {
            before.get(what).is_some_and(|columns| columns.get(column).is_some())
        };
        let (mut least, mut greatest, mut nulls) = (Map::new(), Map::new(), Map::new());
        for (name, column) in &self.columns {
            if let Some(count) = column.nulls
                && was_told("nullCount", name)
            {
                nulls.insert(name.clone(), count.into());
            }
            if let Some((from, to)) = column.bounds.told()
                && was_told("minValues", name)
                && was_told("maxValues", name)
            {
                least.insert(name.clone(), from);
                greatest.insert(name.clone(), to);
            }
        }
        let told = json!({
            "numRecords": self.rows,
            "minValues": least,
            "maxValues": greatest,
            "nullCount": nulls,
        });
        told.to_string()
    }
}

impl ColumnStats {
    /// Of a part of a column.
    fn of(column: &ColumnChunkMetaData) -> Self {
        let Some(statistics) = column.statistics() else {
            return Self { nulls: None, bounds: Bounds::Unknown };
        };
        let nulls = statistics.null_count_opt();
        let are_values = u64::try_from(column.num_values()).ok() != nulls;
        let bounds = if are_values { Bounds::of(column, statistics) } else { Bounds::Empty };
        Self { nulls, bounds }
    }

    /// Together with another part.
    fn with(self, other: Self) -> Self {
        let nulls = self.nulls.zip(other.nulls).map(|(one, two)| one.saturating_add(two));
        Self { nulls, bounds: self.bounds.with(other.bounds) }
    }
}

impl Bounds {
    fn of(column: &ColumnChunkMetaData, statistics: &Statistics) -> Self {
        let kind = column.column_descr();
        let is_plain = kind.logical_type_ref().is_none();
        let found = match (statistics, kind.converted_type()) {
            (Statistics::Int32(of), ConvertedType::DATE) => {
                of.min_opt().zip(of.max_opt()).map(|(from, to)| Self::Days(*from, *to))
            }
            (
                Statistics::Int32(of),
                ConvertedType::INT_8 | ConvertedType::INT_16 | ConvertedType::INT_32,
            ) => Self::numbers(of.min_opt(), of.max_opt()),
            (Statistics::Int64(of), ConvertedType::INT_64) => {
                Self::numbers(of.min_opt(), of.max_opt())
            }
            (Statistics::Int32(of), ConvertedType::NONE) if is_plain => {
                Self::numbers(of.min_opt(), of.max_opt())
            }
            (Statistics::Int64(of), ConvertedType::NONE) if is_plain => {
                Self::numbers(of.min_opt(), of.max_opt())
            }
            (Statistics::ByteArray(of), ConvertedType::UTF8) => {
                let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
                let from = of.min_opt().and_then(|from| text(from.data()));
                let to = of.max_opt().and_then(|to| text(to.data()));
                from.zip(to).map(|(from, to)| Self::Texts(from, to))
            }
            _ => None,
        };
        found.unwrap_or(Self::Unknown)
    }

    fn numbers<N: Copy + Into<i64>>(from: Option<&N>, to: Option<&N>) -> Option<Self> {
        from.zip(to).map(|(from, to)| Self::Numbers((*from).into(), (*to).into()))
    }

    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Empty, known) | (known, Self::Empty) => known,
            (Self::Numbers(a, b), Self::Numbers(c, d)) => Self::Numbers(a.min(c), b.max(d)),
            (Self::Days(a, b), Self::Days(c, d)) => Self::Days(a.min(c), b.max(d)),
            (Self::Texts(a, b), Self::Texts(c, d)) => Self::Texts(a.min(c), b.max(d)),
            _ => Self::Unknown,
        }
    }

    fn told(&self) -> Option<(Value, Value)> {
        let day = |days: i32| {
            let day = DateTime::from_timestamp(i64::from(days) * DAY_SECONDS, 0)?;
            // Readers parse years of four digits.
            let day = day.date_naive().to_string();
            (day.len() == "2026-01-31".len()).then(|| Value::from(day))
        };
        match self {
            Self::Numbers(from, to) => Some(((*from).into(), (*to).into())),
            Self::Days(from, to) => day(*from).zip(day(*to)),
            Self::Texts(from, to) => Some((from.as_str().into(), to.as_str().into())),
            Self::Empty | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

    use super::*;

    #[test]
    fn a_file_is_told_as_the_one_before_was_and_no_more() {
        let columns: [(&str, ArrayRef); 5] = [
            ("n", Arc::new(Int64Array::from(vec![Some(3), None, Some(-1), Some(7)]))),
            ("name", Arc::new(StringArray::from(vec![Some("b"), Some("ä"), None, None]))),
            ("day", Arc::new(Date32Array::from(vec![0, 1, 19_000, 2]))),
            ("part", Arc::new(Float64Array::from(vec![0.5, 1.5, 2.5, 3.5]))),
            ("secret", Arc::new(StringArray::from(vec!["x", "y", "z", "z"]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        // Two row groups, of which one has no name.
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let stats = FileStats::of(&Bytes::from(file), 4);
        let all = |names: &[&str]| {
            let all = names.iter().map(|name| ((*name).to_owned(), Value::from(0)));
            Value::Object(all.collect())
        };
        let before = all(&["n", "name", "day", "part"]);
        let before =
            json!({"minValues": before, "maxValues": before, "nullCount": all(&["n", "name"])});
        let told: Value = serde_json::from_str(&stats.told(Some(&before.to_string()))).unwrap();
        assert_eq!(
            told,
            json!({
                "numRecords": 4,
                "minValues": {"n": -1, "name": "b", "day": "1970-01-01"},
                "maxValues": {"n": 7, "name": "ä", "day": "2022-01-08"},
                "nullCount": {"n": 1, "name": 2},
            })
        );
        for before in [None, Some("no JSON"), Some("{}")] {
            let told: Value = serde_json::from_str(&stats.told(before)).unwrap();
            let none = json!({"numRecords": 4, "minValues": {}, "maxValues": {}, "nullCount": {}});
            assert_eq!(told, none);
        }
        assert_eq!(FileStats::of(&Bytes::from("no file"), 1).columns.len(), 0);
        for (from, to) in [(0, 3_000_000), (-800_000, 0)] {
            assert_eq!(Bounds::Days(from, to).told(), None, "of other than four digits");
        }
    }
}
