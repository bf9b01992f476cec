//! `system.audit` and `system.audit_faults`: the record, read segment by segment while the query
//! runs, and what verifying it finds.
//!
//! Holders of `admin` or `policy_admin` see all of it, others what they did themselves; they alone
//! verify it.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use catalog::audit::Expected;
use catalog::policy::Role;
use catalog::{AuditEntry, Catalog};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};

use super::accounts::lists;
use super::batches::{batch, integers, optional_texts, texts};
use super::sessions::instants;
use crate::error::{Error, Result};
use crate::rights::Rights;
use crate::session::StatementContext;

/// Rows that are made when the query runs, not when it is planned.
pub(super) type Rows = BoxStream<'static, DataFusionResult<RecordBatch>>;

/// A table whose rows are made by a call.
struct Made {
    schema: SchemaRef,
    rows: Box<dyn Fn() -> Rows + Send + Sync>,
}

impl fmt::Debug for Made {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Made").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PartitionStream for Made {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), (self.rows)()))
    }
}

/// A table with the columns of `empty`, whose rows are made when it is read.
pub(super) fn made(
    empty: &RecordBatch,
    rows: impl Fn() -> Rows + Send + Sync + 'static,
) -> Result<Arc<dyn TableProvider>> {
    let schema = empty.schema();
    let made = Made { schema: Arc::clone(&schema), rows: Box::new(rows) };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(made)])?))
}

/// Whether somebody sees what everybody did.
pub(super) fn sees_all(rights: &Rights) -> bool {
    rights.has(Role::Admin) || rights.has(Role::PolicyAdmin)
}

pub(super) fn audit(context: &Arc<StatementContext>) -> Result<Arc<dyn TableProvider>> {
    let rights = context.rights();
    // Nobody else's name is one's own, even where somebody vouches for it.
    let own = if rights.is_me(Some(rights.name())) { rights.name() } else { "" };
    let whose = (!sees_all(rights)).then(|| own.to_owned());
    let catalog = Arc::clone(context.engine().catalog());
    made(&rows(&[])?, move || {
        let (catalog, whose) = (Arc::clone(&catalog), whose.clone());
        stream::once(drained(catalog))
            .flat_map(move |catalog| {
                let whose = whose.clone();
                catalog.audit_entries().map(move |entries| -> DataFusionResult<RecordBatch> {
                    let mut entries = entries.map_err(Error::from)?;
                    if let Some(name) = &whose {
                        entries.retain(|entry| entry.principal == *name);
                    }
                    Ok(rows(&entries)?)
                })
            })
            .boxed()
    })
}

/// The catalog, once what this server has recorded so far can be read.
pub(super) async fn drained(catalog: Arc<Catalog>) -> Arc<Catalog> {
    if catalog.audit().failing().is_none() {
        // What cannot be written is told by the record itself; what is written can be read.
        let _ = catalog.audit().drain().await;
    }
    catalog
}

fn rows(entries: &[AuditEntry]) -> Result<RecordBatch> {
    let names = |of: fn(&AuditEntry) -> &Vec<String>| lists(entries.iter().map(|e| Some(of(e))));
    let optional = |of: fn(&AuditEntry) -> &Option<String>| {
        optional_texts(entries.iter().map(|entry| of(entry).clone()))
    };
    let numbers = |of: fn(&AuditEntry) -> Option<i64>| -> ArrayRef {
        Arc::new(entries.iter().map(of).collect::<Int64Array>())
    };
    batch(vec![
        ("sequence", integers(entries.iter().map(|entry| entry.sequence.cast_signed()))),
        ("at", instants(entries.iter().map(|entry| Some(entry.at_ms)))),
        ("event", texts(entries.iter().map(|entry| entry.event.name()))),
        ("phase", texts(entries.iter().map(|entry| entry.phase.name()))),
        ("principal", texts(entries.iter().map(|entry| entry.principal.as_str()))),
        ("roles", names(|entry| &entry.roles)),
        ("purpose", optional(|entry| &entry.purpose)),
        ("channel", optional(|entry| &entry.channel)),
        ("client", optional(|entry| &entry.client)),
        ("address", optional(|entry| &entry.address)),
        ("session_id", optional(|entry| &entry.session_id)),
        ("query_id", optional(|entry| &entry.query_id)),
        ("kind", texts(entries.iter().map(|entry| entry.kind.as_str()))),
        ("text", optional(|entry| &entry.text)),
        ("objects", names(|entry| &entry.objects)),
        ("columns", names(|entry| &entry.columns)),
        ("policies", names(|entry| &entry.policies)),
        ("keys", names(|entry| &entry.keys)),
        ("subjects", names(|entry| &entry.subjects)),
        ("rows", numbers(|entry| entry.rows.map(u64::cast_signed))),
        ("outcome", optional(|entry| &entry.outcome)),
        ("error_code", optional(|entry| &entry.error_code)),
        ("run_ms", numbers(|entry| entry.run_ms)),
    ])
}

/// A fault's segment, its entry where one can be named, and what is wrong.
type Fault = (u64, Option<u64>, String);

pub(super) fn faults(context: &Arc<StatementContext>) -> Result<Arc<dyn TableProvider>> {
    let catalog = Arc::clone(context.engine().catalog());
    let (may_verify, name) = (sees_all(context.rights()), context.rights().name().to_owned());
    made(&fault_rows(&[])?, move || {
        let (catalog, name) = (Arc::clone(&catalog), name.clone());
        let found = async move {
            // No rows would say that the record has no faults.
            if !may_verify {
                return Err(DataFusionError::from(Error::Denied {
                    principal: name,
                    action: "verify the record".into(),
                    hint: Some(
                        "this needs the role admin or policy_admin; system.audit has what you did"
                            .into(),
                    ),
                }));
            }
            let catalog = drained(catalog).await;
            let faults = found(&catalog).await?;
            Ok::<_, DataFusionError>(fault_rows(&faults)?)
        };
        stream::once(found).boxed()
    })
}

async fn found(catalog: &Catalog) -> Result<Vec<Fault>> {
    let found = catalog.verify_audit(&Expected::default()).await?;
    let told = found.faults.into_iter();
    Ok(told.map(|fault| (fault.segment, fault.sequence, fault.what)).collect())
}

fn fault_rows(faults: &[Fault]) -> Result<RecordBatch> {
    let sequences: Int64Array =
        faults.iter().map(|(_, sequence, _)| sequence.map(u64::cast_signed)).collect();
    batch(vec![
        ("segment", integers(faults.iter().map(|(segment, ..)| segment.cast_signed()))),
        ("sequence", Arc::new(sequences)),
        ("fault", texts(faults.iter().map(|(.., what)| what.as_str()))),
    ])
}
