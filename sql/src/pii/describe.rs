//! DESCRIBE of a table whose identifiers are kept apart: its columns, and the key of those that are
//! pseudonyms.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use catalog::{Object, ObjectName, Pii};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlanBuilder;

use crate::error::Result;
use crate::rights::Rights;
use crate::session::bindings::Bindings;
use crate::session::{Action, StatementContext, open};
use crate::system::{batch, optional_texts, texts};

/// Plans DESCRIBE of such a table; `None` for anything else.
///
/// # Errors
/// When the table cannot be opened.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    parts: &[String],
) -> Result<Option<(SessionState, Action)>> {
    let sees = |rights: &Rights, name: &ObjectName, object: &Object| {
        rights.access(name, Some(object)).is_any()
    };
    // What there is to say of a name that means nothing is said where it is planned.
    let Ok(Some((name, object))) = context.find(parts, sees).await else { return Ok(None) };
    let Some(pii) = &object.pii else { return Ok(None) };
    let Some(table) = open(context, &name).await? else { return Ok(None) };
    let rows = rows(&table.schema(), pii)?;
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
    let scan = LogicalPlanBuilder::scan("columns", provider_as_source(Arc::new(table)), None)?;
    Ok(Some((context.state(&Bindings::default())?, Action::Query(scan.build()?))))
}

/// What DataFusion's DESCRIBE tells, and the key.
fn rows(schema: &SchemaRef, pii: &Pii) -> Result<RecordBatch> {
    let fields = schema.fields();
    let nullable = fields.iter().map(|field| if field.is_nullable() { "YES" } else { "NO" });
    let keys = fields.iter().map(|field| pii.has(field.name()).then(|| pii.key.clone()));
    batch(vec![
        ("column_name", texts(fields.iter().map(|field| field.name().as_str()))),
        ("data_type", texts(fields.iter().map(|field| field.data_type().to_string()))),
        ("is_nullable", texts(nullable)),
        ("pseudonymized_under", optional_texts(keys)),
    ])
}
