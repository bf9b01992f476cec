//! Where a clustered table's rows lie: sorted by its columns, in pages that a look-up reads alone;
//! and of which columns files have statistics.
//!
//! A look-up prunes files by their statistics, row groups by theirs and pages by the page index, so
//! it decodes one page a column: its cost is that page, and whatever dictionary comes with it. No
//! bloom filter is written: on sorted values the page index already says which page may hold a key,
//! and a filter would be read for every look-up to say the same.
//!
//! Personal columns have no statistics: neither of the file, nor of a row group, nor of a page, and
//! so none in the log, which takes them from the footer. Rows may be clustered by one, and a
//! look-up by it reads every page.

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use deltalake::parquet::basic::Compression;
use deltalake::parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder,
};
use deltalake::parquet::schema::types::ColumnPath;

use crate::error::{Error, Result};
use crate::personal_columns::PersonalColumns;

/// Rows of a page: a few tens of kilobytes in common columns.
const PAGE_ROWS: usize = 1_024;
/// Rows of a row group: its statistics, dictionaries and page index stay small.
const GROUP_ROWS: usize = 128 * 1_024;
/// A dictionary is read with any page that uses it.
const DICTIONARY_BYTES_MAX: usize = 32 * 1_024;

/// The plan with its rows in the order of the columns; NULL comes last.
///
/// With a table's `target` schema the plan's columns are the table's in order.
///
/// # Errors
/// When the plan has no such column.
pub fn sorted(
    plan: LogicalPlan,
    target: Option<&SchemaRef>,
    cluster_by: &[String],
) -> Result<LogicalPlan> {
    if cluster_by.is_empty() {
        return Ok(plan);
    }
    let mut order = Vec::with_capacity(cluster_by.len());
    for name in cluster_by {
        let index = match target {
            Some(target) => target.index_of(name).ok(),
            None => plan.schema().fields().iter().position(|field| field.name() == name),
        };
        let found = index.filter(|index| *index < plan.schema().fields().len());
        let index = found
            .ok_or_else(|| Error::invalid(format!("there is no column {name} to cluster by")))?;
        let column = Column::from(plan.schema().qualified_field(index));
        order.push(Expr::Column(column).sort(true, false));
    }
    Ok(LogicalPlanBuilder::from(plan).sort(order)?.build()?)
}

/// How the files of a clustered table, or of one with personal columns, are written; `None` for
/// others, which are written as Delta does.
pub fn properties(
    schema: &Schema,
    cluster_by: &[String],
    personal: &PersonalColumns,
) -> Option<WriterProperties> {
    let has_personal = schema.fields().iter().any(|field| personal.has(field.name()));
    if cluster_by.is_empty() && !has_personal {
        return None;
    }
    let mut properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    if !cluster_by.is_empty() {
        properties = clustered(properties, cluster_by);
    }
    if has_personal {
        properties = without_personal(properties, schema, personal);
    }
    Some(properties.build())
}

fn clustered(
    properties: WriterPropertiesBuilder,
    cluster_by: &[String],
) -> WriterPropertiesBuilder {
    let mut properties = properties
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_write_batch_size(PAGE_ROWS)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_max_row_group_row_count(Some(GROUP_ROWS));
    for name in cluster_by {
        properties = properties.set_column_dictionary_enabled(path(name), false);
    }
    properties
}

/// Statistics of the columns that are not personal, and of no other, however the file names its
/// parts: a nested column, whose statistics leave no file out, has none beside a personal one.
fn without_personal(
    properties: WriterPropertiesBuilder,
    schema: &Schema,
    personal: &PersonalColumns,
) -> WriterPropertiesBuilder {
    let mut properties =
        properties.set_statistics_enabled(EnabledStatistics::None).set_bloom_filter_enabled(false);
    for field in schema.fields() {
        if !personal.has(field.name()) && !field.data_type().is_nested() {
            let level = EnabledStatistics::Page;
            properties = properties.set_column_statistics_enabled(path(field.name()), level);
        }
    }
    properties
}

fn path(column: &str) -> ColumnPath {
    ColumnPath::new(vec![column.to_owned()])
}
