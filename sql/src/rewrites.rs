//! Expressions rewritten before types are coerced: what [`FunctionRewrite`]s make of them.
//!
//! DataFusion's own rule gives what it rewrites an alias, so that columns keep their names. The
//! members of ROLLUP, CUBE and GROUPING SETS are such columns, the set is none: with an alias it
//! would be a grouping set no more.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr_rewriter::{FunctionRewrite, NamePreserver};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

/// A rule that may be shared.
pub(crate) type Rewrite = Arc<dyn FunctionRewrite + Send + Sync>;

/// Rewrites every expression by each of them.
#[derive(Debug)]
pub(crate) struct Rewrites(pub(crate) Vec<Rewrite>);

impl AnalyzerRule for Rewrites {
    fn name(&self) -> &str {
        "rewrites"
    }

    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let schema = columns(&node)?;
            map_named(node, |expr| {
                expr.transform_up(|part| {
                    self.0.iter().try_fold(Transformed::no(part), |part, rule| {
                        part.transform_data(|part| rule.rewrite(part, &schema, options))
                    })
                })
            })
        });
        rewritten.data()
    }
}

/// The columns that the expressions of a node may name.
fn columns(node: &LogicalPlan) -> DataFusionResult<DFSchema> {
    let mut schema = merge_schema(&node.inputs());
    if let LogicalPlan::TableScan(scan) = node {
        let name = scan.table_name.clone();
        schema.merge(&DFSchema::try_from_qualified_schema(name, &scan.source.schema())?);
    }
    Ok(schema)
}

/// The node with its expressions rewritten, under the names that they had.
///
/// # Errors
/// Those of `rewrite`.
pub(crate) fn map_named(
    node: LogicalPlan,
    mut rewrite: impl FnMut(Expr) -> DataFusionResult<Transformed<Expr>>,
) -> DataFusionResult<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    let mut named = |expr: Expr| -> DataFusionResult<Transformed<Expr>> {
        let name = names.save(&expr);
        Ok(rewrite(expr)?.update_data(|expr| name.restore(expr)))
    };
    node.map_expressions(|expr| match expr {
        Expr::GroupingSet(_) => expr.map_children(&mut named),
        expr => named(expr),
    })
}
