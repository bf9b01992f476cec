//! CREATE EXTERNAL TABLE: files in a lake become a table.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::lake::{Column, Format, LakeTable};
use catalog::{CreateMode, ObjectName, Spec};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::{CreateExternalTable, Statement as DataFusionStatement};

use crate::error::{Error, Result};
use crate::parse::name_parts;
use crate::pii;
use crate::session::bindings::Bindings;
use crate::session::run::Run;
use crate::session::{Action, StatementContext};
use crate::table::{Definition, aliases, mode};

/// Plans CREATE EXTERNAL TABLE.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    create: &CreateExternalTable,
) -> Result<(SessionState, Action)> {
    let name = context.target(&name_parts(&create.name))?;
    let object = context.engine().catalog().object(&name).await?;
    context.rights().may_create_external(&name, object.as_ref())?;
    let mode = mode(create.or_replace, create.if_not_exists)?;
    if create.temporary || create.unbounded || !create.order_exprs.is_empty() {
        return Err(Error::unsupported(
            "temporary, unbounded and ordered external tables are not supported",
            "leave TEMPORARY, UNBOUNDED and WITH ORDER out",
        ));
    }
    let [location] = create.locations.as_slice() else {
        return Err(Error::invalid_hint(
            "an external table has one LOCATION",
            "name the folder that holds the files",
        ));
    };
    let format: Format = create.file_type.parse()?;
    let mut plain = create.clone();
    let pii = pii::syntax::taken(&mut plain.options, &name)?;
    if let Some(pii) = &pii {
        pii::change::may_use(context, pii)?;
    }
    let state = context.state(&Bindings::default())?;
    // DataFusion's planner turns the SQL types of the columns into Arrow's.
    let statement = DataFusionStatement::CreateExternalTable(plain);
    let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(planned)) =
        state.statement_to_plan(statement).await?
    else {
        return Err(Error::Internal("CREATE EXTERNAL TABLE was planned as something else".into()));
    };
    let columns: Vec<Column> = planned
        .schema
        .fields()
        .iter()
        .map(|field| Column::new(field.name().clone(), field.data_type().clone()))
        .collect();
    let options: BTreeMap<String, String> = planned
        .options
        .iter()
        .map(|(key, value)| (key.trim_start_matches("format.").to_lowercase(), value.clone()))
        .collect();
    let partitions = planned.table_partition_cols.iter().map(|name| {
        let given = columns.iter().find(|column| column.name == *name);
        given
            .cloned()
            .unwrap_or_else(|| Column::new(name.clone(), arrow::datatypes::DataType::Null))
    });
    let mut table = LakeTable::new(location.clone(), format);
    table.partitions = partitions.collect();
    table.columns = columns;
    table.options = options;
    table.pii = pii;
    table.check()?;
    let change = Definition::External { name, mode, table: Box::new(table) };
    Ok((state, Action::Definition(change)))
}

/// Opens the table once, so that a wrong location or clashing files are an error of CREATE, as are
/// files of a table of which a part is kept back, and identifiers that have no pseudonyms.
async fn check(run: &Run, name: &ObjectName, table: &LakeTable) -> Result<()> {
    aliases::check(run, name, table).await?;
    let engine = run.session.engine();
    let rows = engine.catalog().try_lake_table(name, table, &run.state).await?;
    if let Some(pii) = &table.pii {
        // The right of this moment: a prepared statement may be older.
        pii::change::may_use(StatementContext::load(&run.session).await?.as_ref(), pii)?;
        pii::shown::check(engine, name, pii, rows).await?;
    }
    Ok(())
}

/// Defines the table; what there is to say of it, or `None` when one of its name stays.
pub(super) async fn define(
    run: &Run,
    name: &ObjectName,
    mode: CreateMode,
    table: &LakeTable,
) -> Result<Option<String>> {
    let (catalog, owner) = (run.session.engine().catalog(), &run.session.principal().name);
    let table = &pii::change::pinned(catalog, table).await?;
    let seen = catalog.seen(name).await?;
    // A table that is there stays as it is, or is an error.
    let is_made = mode == CreateMode::Replace || catalog.object(name).await?.is_none();
    if is_made {
        pii::change::may_become(run, name, &seen, table).await?;
    }
    check(run, name, table).await?;
    if is_made && let Some(pii) = &table.pii {
        // Before the table, so that policies of tags are about it from its beginning, and nothing
        // that was told of identifiers is told after it.
        pii::change::tag(catalog, name, pii).await?;
        pii::change::forget(catalog, name, &seen, pii).await?;
    }
    let spec = Spec::External(table.clone());
    if !catalog.create_over(name, spec, owner, mode, &seen).await? {
        return Ok(None);
    }
    Ok(Some(match &table.pii {
        Some(pii) => pii::change::told(catalog, name, pii).await,
        None => String::new(),
    }))
}
