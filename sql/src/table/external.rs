//! CREATE EXTERNAL TABLE: files in a lake become a table.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::ObjectName;
use catalog::lake::{Column, Format, LakeTable};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::{CreateExternalTable, Statement as DataFusionStatement};

use crate::error::{Error, Result};
use crate::parse::name_parts;
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
    let state = context.state(&Bindings::default())?;
    // DataFusion's planner turns the SQL types of the columns into Arrow's.
    let statement = DataFusionStatement::CreateExternalTable(create.clone());
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
    table.check()?;
    let change = Definition::External { name, mode, table: Box::new(table) };
    Ok((state, Action::Definition(change)))
}

/// Opens the table once, so that a wrong location or clashing files are an error of CREATE, as are
/// files of a table of which a part is kept back.
pub(crate) async fn check(run: &Run, name: &ObjectName, table: &LakeTable) -> Result<()> {
    aliases::check(run, name, table).await?;
    run.session.engine().catalog().try_lake_table(name, table, &run.state).await?;
    Ok(())
}
