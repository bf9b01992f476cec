//! Plans so small that their rows are computed by whoever reads them.
//!
//! A plan's last operator has a task of its own, so that its reader hears of a time limit or KILL
//! while it computes (see `patience`). A look-up is over before it could hear of anything, and the
//! task with its queue costs it two changes of threads. Brief is what reads one Parquet scan of
//! bounded size, or no table, and only compares and converts: at most the time that a thread takes
//! to look through [`ROWS_MAX`] values. A scan that does not look for equal values is brief only
//! when it is tiny: its rows go out while the next ones are read.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
    TryCastExpr,
};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::operators::is_condition;

/// Rows of the files in which values are looked for.
const ROWS_MAX: usize = 2_000_000;
/// Rows of the files that are read through.
const ROWS_READ_MAX: usize = 8_192;
/// Bytes of a scan's files, as they lie and as they are read.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Parts of all expressions.
const PARTS_MAX: usize = 256;
/// Rows times the parts of expressions: a tenth of a second.
const WORK_MAX: usize = 1 << 26;

/// Whether a plan of one partition computes its rows in a moment.
pub(crate) fn is_brief(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let (mut brief, mut rows, mut parts) = (true, 0_usize, 0_usize);
    let walked = plan.apply(|node| {
        match node.downcast_ref::<DataSourceExec>() {
            Some(scan) => match small(scan) {
                Some(read) => rows = rows.saturating_add(read),
                None => brief = false,
            },
            None => brief &= is_plain(node),
        }
        node.apply_expressions(&mut |expr: &Arc<dyn PhysicalExpr>| {
            expr.apply(|part| {
                parts += 1;
                brief &= parts <= PARTS_MAX && compares(part);
                Ok(if brief { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })?;
        Ok(if brief { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && brief && rows.saturating_mul(parts) <= WORK_MAX
}

fn is_plain(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<PlaceholderRowExec>()
        || node.is::<EmptyExec>()
        || node.is::<CooperativeExec>()
        || node.is::<ProjectionExec>()
        || node.is::<FilterExec>()
        || node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>()
}

/// The rows of a scan whose files are Parquet and known to be small.
fn small(scan: &DataSourceExec) -> Option<usize> {
    let scan = scan.data_source().downcast_ref::<FileScanConfig>()?;
    let source = scan.file_source();
    let rows_max = if looks_up(source.as_ref()) { ROWS_MAX } else { ROWS_READ_MAX };
    let (mut rows, mut bytes) = (0usize, 0u64);
    for file in scan.file_groups.iter().flat_map(|group| group.iter()) {
        let known = file.statistics.as_ref()?;
        rows = rows.saturating_add(*known.num_rows.get_value()?);
        // What they hold may be much more than what they take.
        let held = known.total_byte_size.get_value().map_or(0, |held| *held as u64);
        bytes = bytes.saturating_add(held.max(file.object_meta.size));
    }
    let is_small = source.file_type() == "parquet" && rows <= rows_max && bytes <= BYTES_MAX;
    is_small.then_some(rows)
}

/// Whether a scan answers rows with given values only.
fn looks_up(source: &dyn FileSource) -> bool {
    let equals = |part: &Arc<dyn PhysicalExpr>| {
        if let Some(binary) = part.downcast_ref::<BinaryExpr>() {
            let sides = [binary.left(), binary.right()];
            return *binary.op() == Operator::Eq && sides.iter().any(|side| side.is::<Literal>());
        }
        part.downcast_ref::<InListExpr>().is_some_and(|list| !list.negated())
    };
    source.filter().is_some_and(|filter| split_conjunction(&filter).into_iter().any(equals))
}

/// Whether an expression takes a moment for each row: converting a text takes as long as that is.
fn compares(part: &Arc<dyn PhysicalExpr>) -> bool {
    let converted = [
        part.downcast_ref::<CastExpr>().map(CastExpr::expr),
        part.downcast_ref::<TryCastExpr>().map(TryCastExpr::expr),
    ];
    if let Some(of) = converted.into_iter().flatten().next() {
        return of.is::<Literal>();
    }
    match part.downcast_ref::<BinaryExpr>() {
        Some(binary) => is_condition(*binary.op()),
        None => {
            part.is::<Column>()
                || part.is::<Literal>()
                || part.is::<NotExpr>()
                || part.is::<IsNullExpr>()
                || part.is::<IsNotNullExpr>()
                || part.is::<InListExpr>()
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::Statistics;
    use datafusion::common::stats::Precision;
    use datafusion::datasource::listing::PartitionedFile;
    use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
    use datafusion::execution::object_store::ObjectStoreUrl;
    use datafusion::physical_expr::expressions::lit;
    use datafusion::physical_plan::joins::CrossJoinExec;

    use super::*;

    /// A scan of a file of so many rows for one value, or of all of it.
    fn scan(rows: Option<usize>, bytes: u64, looks_up: bool) -> Arc<dyn ExecutionPlan> {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
        let mut source = ParquetSource::new(Arc::clone(&schema));
        if looks_up {
            let id: Arc<dyn PhysicalExpr> = Arc::new(Column::new("id", 0));
            source = source.with_predicate(Arc::new(BinaryExpr::new(id, Operator::Eq, lit(7_i64))));
        }
        let mut statistics = Statistics::new_unknown(&schema);
        statistics.num_rows = rows.map_or(Precision::Absent, Precision::Exact);
        let file = PartitionedFile::new("a.parquet", bytes).with_statistics(Arc::new(statistics));
        let url = ObjectStoreUrl::local_filesystem();
        let scan = FileScanConfigBuilder::new(url, Arc::new(source)).with_file(file).build();
        DataSourceExec::from_data_source(scan)
    }

    #[test]
    fn a_look_up_in_what_is_known_to_be_small_is_brief() {
        assert!(is_brief(&scan(Some(1_000_000), 1 << 25, true)));
        assert!(is_brief(&scan(Some(100), 1 << 10, false)));
        assert!(!is_brief(&scan(Some(1_000_000), 1 << 25, false)));
        assert!(!is_brief(&scan(Some(1_000_000_000), 1 << 25, true)));
        assert!(!is_brief(&scan(Some(1_000_000), 1 << 40, true)));
        assert!(!is_brief(&scan(None, 1 << 10, true)));
    }

    #[test]
    fn what_makes_more_rows_is_not_brief() {
        let row: Arc<dyn ExecutionPlan> =
            Arc::new(PlaceholderRowExec::new(Arc::new(Schema::empty())));
        assert!(is_brief(&row));
        let pairs = CrossJoinExec::new(Arc::clone(&row), Arc::clone(&row));
        let pairs: Arc<dyn ExecutionPlan> = Arc::new(pairs);
        assert!(!is_brief(&pairs));
    }
}
