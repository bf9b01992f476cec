//! From a file's columns to the table's: NULL for a missing column, a cast for a narrower type.
//!
//! DataFusion's adapter casts whatever can be cast, text to numbers too. For a table whose types
//! were inferred only exact widenings are right, so a file that was not looked at before and
//! clashes is found here. Types that a person gave are cast as the person asked.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Result;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};

use super::format::Format;
use super::schema::widen_for;
use crate::error::Error;

/// Makes the adapters of one table's files.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// The table's URL, for messages.
    pub table: String,
    pub format: Format,
    /// Whether the types were inferred, so that only exact widenings are allowed.
    pub is_inferred: bool,
}

impl PhysicalExprAdapterFactory for Adapter {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        // Text files were decoded as the wanted types already.
        if self.is_inferred && !self.format.is_text() {
            for field in table.fields() {
                let Some((_, found)) = file.column_with_name(field.name()) else { continue };
                self.check(field.name(), found.data_type(), field.data_type())?;
            }
        }
        DefaultPhysicalExprAdapterFactory.create(table, file)
    }
}

impl Adapter {
    /// Whether a file's type of a column may be read as the table's.
    ///
    /// # Errors
    /// When it may not: a clash, without the file's URL, which the caller knows.
    pub fn check(&self, column: &str, found: &DataType, wanted: &DataType) -> Result<(), Error> {
        let fits = *found == DataType::Null
            || widen_for(self.format, found, wanted).is_some_and(|wider| wider == *wanted)
            || (found.is_string() && wanted.is_string())
            || (found.is_binary() && wanted.is_binary());
        if fits {
            return Ok(());
        }
        Err(Error::Clash {
            url: String::new(),
            column: column.to_owned(),
            found: found.to_string(),
            expected: wanted.to_string(),
            other: self.table.clone(),
        })
    }
}
