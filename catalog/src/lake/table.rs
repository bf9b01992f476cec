//! The definition of a lake table: where its files are and how they are read.
//!
//! This is the document that the registry stores, that `attune.toml` gives and that CREATE
//! EXTERNAL TABLE makes. Types are written as Arrow writes them (`Int64`, `Utf8`,
//! `Timestamp(Microsecond, None)`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::format::{Format, Settings};
use crate::error::{Error, Result};
use crate::pii::Pii;

/// A table that is made of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeTable {
    /// A URL, a local path, or a path below the lake's own place.
    pub location: String,
    /// How the files are encoded.
    pub format: Format,
    /// The format's options, as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The columns told by folders `key=value`; inferred when empty. The type `Null` means that
    /// the name is given and the type is inferred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Column>,
    /// The columns in the files; inferred when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    /// The personal identifiers that are kept apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pii: Option<Pii>,
}

/// A column of a lake table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The column's name, as it is written in the files.
    pub name: String,
    /// Its type.
    #[serde(rename = "type", serialize_with = "write_type", deserialize_with = "read_type")]
    pub data_type: DataType,
}

impl Column {
    /// A column of a name and a type.
    pub fn new(name: impl Into<String>, data_type: DataType) -> Self {
        Self { name: name.into(), data_type }
    }
}

impl LakeTable {
    /// A table whose columns and partitions are told by its files.
    pub fn new(location: impl Into<String>, format: Format) -> Self {
        Self {
            location: location.into(),
            format,
            options: BTreeMap::new(),
            partitions: Vec::new(),
            columns: Vec::new(),
            pii: None,
        }
    }

    /// The same table with an option.
    #[must_use]
    pub fn with_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }

    /// The same table with columns of given types instead of inferred ones.
    #[must_use]
    pub fn with_columns(mut self, columns: Vec<Column>) -> Self {
        self.columns = columns;
        self
    }

    /// The same table with partition columns of given types.
    #[must_use]
    pub fn with_partitions(mut self, partitions: Vec<Column>) -> Self {
        self.partitions = partitions;
        self
    }

    /// Checks what can be checked without looking at a file, so that CREATE can refuse it.
    ///
    /// # Errors
    /// When an option is unknown or wrong, or a column appears twice.
    pub fn check(&self) -> Result<()> {
        Settings::parse(self.format, &self.options)?;
        if let Some(pii) = &self.pii {
            pii.check()?;
        }
        // A partition column may stand among the columns too, as SQL's DDL writes it.
        for columns in [&self.columns, &self.partitions] {
            let mut seen = HashSet::new();
            if let Some(twice) = columns.iter().find(|column| !seen.insert(&column.name)) {
                return Err(Error::invalid(format!("the column {} is given twice", twice.name)));
            }
        }
        Ok(())
    }

    /// The columns given for the files, if any; always nullable, because a file may lack one.
    ///
    /// A definition may list a partition column among the columns, as SQL's DDL does.
    pub(crate) fn given_schema(&self, partitions: &[Column]) -> Option<SchemaRef> {
        if self.columns.is_empty() {
            return None;
        }
        let in_files = self.columns.iter().filter(|c| partitions.iter().all(|p| p.name != c.name));
        let fields: Vec<Field> =
            in_files.map(|c| Field::new(&c.name, c.data_type.clone(), true)).collect();
        Some(Arc::new(Schema::new(fields)))
    }

    /// The type given for a partition column, among the partitions or else among the columns.
    pub(crate) fn given_partition_type(&self, name: &str) -> Option<&DataType> {
        let given = self.partitions.iter().chain(&self.columns).filter(|c| c.name == name);
        given.map(|column| &column.data_type).find(|known| **known != DataType::Null)
    }
}

fn write_type<S: Serializer>(data_type: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(data_type)
}

fn read_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::TimeUnit;

    #[test]
    fn a_definition_survives_its_document() {
        let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
        let fields = vec![Field::new("a", DataType::Int8, true)];
        let types = [
            DataType::Int64,
            DataType::Utf8,
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::Decimal128(12, 2),
            DataType::List(item),
            DataType::Struct(fields.into()),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        ];
        let columns =
            types.into_iter().enumerate().map(|(i, t)| Column::new(format!("c{i}"), t)).collect();
        let table = LakeTable::new("orders/", Format::Csv)
            .with_option("header", "true")
            .with_columns(columns)
            .with_partitions(vec![Column::new("day", DataType::Date32)]);
        let pii = Pii {
            columns: vec!["c1".into()],
            key: "web@2".into(),
            key_id: Some("ab-1".into()),
            table: "who".into(),
        };
        let table = LakeTable { pii: Some(pii), ..table };
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<LakeTable>(&text).unwrap(), table, "{text}");
        table.check().unwrap();
    }

    #[test]
    fn a_column_given_twice_is_refused() {
        let column = Column::new("a", DataType::Int8);
        let table = LakeTable::new("x", Format::Parquet).with_columns(vec![column.clone(), column]);
        assert!(table.check().unwrap_err().to_string().contains("twice"));
    }
}
