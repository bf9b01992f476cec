//! One aggregate of a table's checks, of which each file gives a part.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use catalog::TableFiles;
use catalog::check_states::CheckStates;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{Accumulator, AggregateUDF, Expr, ExprSchemable};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Literal;
use sha2::{Digest, Sha256};
use udfs::quality::value_keys::ValueKeys;

use super::aggregation::{Kept, Query, call, instead, resolved};
use super::keys::{self, KEYS_MAX, Keying};
use super::query::Item;
use super::state::StateOf;
use crate::error::{Error, Result};
use crate::session::StatementContext;

/// The form of keys and states; another one forgets all states.
const FORM: &str = "3";

/// One aggregate of the query.
#[derive(Debug)]
pub(super) struct Part {
    /// Its name among the query's aggregates.
    pub(super) name: String,
    /// What is computed by file: the aggregate, its state, or keys.
    pub(super) call: Expr,
    pub(super) kept: Kept,
    /// The aggregate itself.
    pub(super) of: Arc<AggregateUDF>,
    /// Under which its states are kept, one for each expectation that it stands in.
    pub(super) keys: Vec<String>,
}

impl Part {
    pub(super) fn state<'a>(&self, file: &str, states: &'a CheckStates) -> Option<&'a ScalarValue> {
        self.keys.iter().find_map(|key| states.get(file, key))
    }

    /// The name of a file's keys of values.
    pub(super) fn keys_name(&self, file: &str) -> String {
        keys::name(file, self.keys.first().map_or("", String::as_str))
    }

    /// What accumulates the part, or merges its states as another function of the same arguments;
    /// only their types matter to it.
    pub(super) fn accumulator(
        &self,
        of: Option<&Arc<AggregateUDF>>,
        input: &DFSchema,
    ) -> Result<Box<dyn Accumulator>> {
        let Some(call) = call(&self.call) else {
            return Err(Error::Internal(format!("{} is no aggregate", self.name)));
        };
        let function = of.unwrap_or(&call.func);
        let arguments = call.params.args.iter().map(|argument| {
            let kind = argument.get_type(input)?;
            Ok(Arc::new(Field::new("argument", kind, true)))
        });
        let arguments = arguments.collect::<DataFusionResult<Vec<FieldRef>>>()?;
        let arguments = fields_with_udf(&arguments, function.as_ref())?;
        let arguments = arguments.iter().map(|argument| {
            let null = ScalarValue::try_from(argument.data_type())?;
            Ok(Arc::new(Literal::new(null)) as Arc<dyn PhysicalExpr>)
        });
        let arguments = arguments.collect::<DataFusionResult<Vec<_>>>()?;
        let aggregate = AggregateExprBuilder::new(Arc::clone(function), arguments)
            .schema(Arc::new(input.as_arrow().clone()))
            .alias(self.name.clone())
            .build()?;
        Ok(aggregate.create_accumulator()?)
    }
}

/// The aggregates of a query, each with the keys of its states.
pub(super) fn parts(
    context: &StatementContext,
    files: &TableFiles,
    query: &Query<'_>,
    (items, uses): (&[Item], &[BTreeSet<usize>]),
    keying: Keying<'_>,
) -> Result<Vec<Part>> {
    let schema = files.rows(&[]).schema();
    let settings = context.settings();
    let session = format!("{:?} {}", settings.time_zone, context.speaks_postgres());
    let aggregates = query.aggregate.aggr_expr.iter().enumerate();
    let parts = aggregates.map(|(number, aggregate)| {
        let resolved = resolved(aggregate, &query.aggregate.input)?;
        let value = query.aggregate.schema.field(number);
        let Some(of) = call(aggregate).map(|call| Arc::clone(&call.func)) else {
            return Err(Error::Internal(format!("{aggregate} is no aggregate")));
        };
        let kept = Kept::of(of.name(), value.data_type());
        let mut about = vec![
            session.clone(),
            files.definition().to_owned(),
            types(&resolved, &schema),
            resolved.to_string(),
            value.data_type().to_string(),
        ];
        let call = match kept {
            Kept::Value => aggregate.clone(),
            Kept::State => {
                let state = AggregateUDF::from(StateOf::new(Arc::clone(&of)));
                instead(aggregate, &Arc::new(state))
            }
            Kept::Keys => {
                let secret = keying.secret.map(Arc::clone);
                let secret = secret.ok_or_else(|| Error::Internal("keys have no secret".into()))?;
                about.push(secret.id().to_owned());
                // Until they come together each partition may hold all of them.
                let partitions = context.engine().limits().target_partitions.max(1);
                let room = (KEYS_MAX as usize).saturating_mul(partitions);
                let keys = AggregateUDF::from(ValueKeys::new(secret, room));
                instead(aggregate, &Arc::new(keys))
            }
        };
        let users = items.iter().zip(uses).filter(|(_, uses)| uses.contains(&number));
        let mut keys: Vec<String> =
            users.map(|(item, _)| key(&about, &item.expectation.check)).collect();
        if keys.is_empty() {
            keys.push(key(&about, ""));
        }
        Ok(Part { name: value.name().clone(), call, kept, of, keys })
    });
    parts.collect()
}

/// The columns of an expression, with their types.
fn types(expr: &Expr, schema: &Schema) -> String {
    let names: BTreeSet<&str> = expr.column_refs().iter().map(|c| c.name.as_str()).collect();
    let fields = names.into_iter().map(|name| (name, schema.field_with_name(name).ok()));
    format!("{:?}", fields.map(|(name, f)| (name, f.map(|f| f.data_type()))).collect::<Vec<_>>())
}

/// Under which states are kept, by what they depend on.
pub(super) fn key(about: &[String], check: &str) -> String {
    let mut digest = Sha256::new();
    let form = [FORM, env!("CARGO_PKG_VERSION")].into_iter();
    for text in form.chain(about.iter().map(String::as_str)).chain([check]) {
        digest.update(text.len().to_string());
        digest.update(":");
        digest.update(text);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
