//! From Attune's plan nodes to its operators.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use crate::anonymize::AnonymizeNode;
use crate::join::NearestNode;
use crate::model;
use crate::private::{PrivateExec, PrivateNode};

/// DataFusion's planner with Attune's operators.
#[derive(Debug)]
pub struct AttuneQueryPlanner;

#[async_trait]
impl QueryPlanner for AttuneQueryPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let operators: Vec<Arc<dyn ExtensionPlanner + Send + Sync>> = vec![Arc::new(Operators)];
        DefaultPhysicalPlanner::with_extension_planners(operators)
            .create_physical_plan(plan, session)
            .await
    }
}

#[derive(Debug)]
struct Operators;

#[async_trait]
impl ExtensionPlanner for Operators {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> DataFusionResult<Option<Arc<dyn ExecutionPlan>>> {
        if let Some(node) = node.as_any().downcast_ref::<model::recommend::RecommendNode>() {
            return Ok(Some(Arc::new(model::recommend::RecommendExec::new(node, inputs)?)));
        }
        if let Some(node) = node.as_any().downcast_ref::<model::create::CreateModelNode>() {
            return Ok(Some(Arc::new(model::create::CreateModelExec::new(node, inputs))));
        }
        if let Some(node) = node.as_any().downcast_ref::<NearestNode>() {
            return Ok(Some(node.operator(inputs)?));
        }
        if let Some(node) = node.as_any().downcast_ref::<AnonymizeNode>() {
            return Ok(Some(node.operator(inputs)?));
        }
        let [input] = inputs else { return Ok(None) };
        if let Some(node) = node.as_any().downcast_ref::<model::evaluate::EvaluateNode>() {
            return Ok(Some(Arc::new(model::evaluate::EvaluateExec::new(node, input)?)));
        }
        if let Some(node) = node.as_any().downcast_ref::<PrivateNode>() {
            return Ok(Some(Arc::new(PrivateExec::new(node, input))));
        }
        Ok(None)
    }
}
