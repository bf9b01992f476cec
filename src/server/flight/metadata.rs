//! The catalog as Flight SQL shows it: catalogs, schemas, tables, table types and keys.
//!
//! Names, types and nullability are those of `FlightSql.proto`; the ADBC driver compares them field
//! by field and refuses anything else. A principal sees what its session sees and nothing more.
//! Attune has no primary or foreign keys: those answers are typed and empty.

use std::sync::{Arc, LazyLock};

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoDataBuilder, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Command, CommandGetDbSchemas, CommandGetTables};
use sql::{Session, TableFilter};
use tonic::Status;

use super::columns::described;
use super::sql_info::SqlInfos;
use super::status;
use super::wire::{WireTypes, wire_schema};
use super::xdbc::TypeInfos;

/// The kinds of table there are, as GetTableTypes lists them.
pub const TABLE_TYPES: [&str; 3] = ["SYSTEM TABLE", "TABLE", "VIEW"];

static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]))
});

/// Exported keys, imported keys and the cross reference have one schema.
static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

static CATALOGS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![Field::new("catalog_name", DataType::Utf8, false)]))
});

static TYPES: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("table_type", DataType::Utf8, false)])));

/// The schema of a metadata command's answer; None for any other command.
pub fn schema(command: &Command) -> Option<SchemaRef> {
    let schema = match command {
        Command::CommandGetCatalogs(_) => Arc::clone(&CATALOGS),
        Command::CommandGetDbSchemas(query) => query.clone().into_builder().schema(),
        Command::CommandGetTables(query) => query.clone().into_builder().schema(),
        Command::CommandGetTableTypes(_) => Arc::clone(&TYPES),
        Command::CommandGetPrimaryKeys(_) => Arc::clone(&PRIMARY_KEYS),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => Arc::clone(&FOREIGN_KEYS),
        Command::CommandGetSqlInfo(_) => Arc::new(SqlInfoDataBuilder::schema().clone()),
        Command::CommandGetXdbcTypeInfo(_) => XdbcTypeInfoDataBuilder::new().schema(),
        _ => return None,
    };
    Some(schema)
}

/// What the answers that do not depend on the session are taken from.
pub struct Facts {
    /// What the server is and can do.
    pub sql_info: SqlInfos,
    /// The types of its SQL.
    pub types: TypeInfos,
}

/// The answer to a metadata command; None for any other command.
pub async fn answer(
    command: &Command,
    session: &Session,
    facts: &Facts,
    types: WireTypes,
) -> Result<Option<RecordBatch>, Status> {
    let batch = match command {
        Command::CommandGetCatalogs(_) => one_column(&CATALOGS, vec![session.catalog_name()]),
        Command::CommandGetTableTypes(_) => one_column(&TYPES, TABLE_TYPES.to_vec()),
        Command::CommandGetDbSchemas(query) => schemas(query.clone(), session).await,
        Command::CommandGetTables(query) => tables(query.clone(), session, types).await,
        Command::CommandGetPrimaryKeys(_) => Ok(RecordBatch::new_empty(Arc::clone(&PRIMARY_KEYS))),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => {
            Ok(RecordBatch::new_empty(Arc::clone(&FOREIGN_KEYS)))
        }
        Command::CommandGetSqlInfo(query) => facts.sql_info.batch(&query.info).map_err(refused),
        Command::CommandGetXdbcTypeInfo(query) => {
            facts.types.batch(query.data_type).map_err(refused)
        }
        _ => return Ok(None),
    };
    batch.map(Some)
}

fn one_column(schema: &SchemaRef, names: Vec<&str>) -> Result<RecordBatch, Status> {
    let names = Arc::new(StringArray::from(names));
    RecordBatch::try_new(Arc::clone(schema), vec![names]).map_err(|error| refused(error.into()))
}

async fn schemas(query: CommandGetDbSchemas, session: &Session) -> Result<RecordBatch, Status> {
    let mut builder = query.into_builder();
    for schema in session.schemas().await.map_err(|error| status::from_sql(&error))? {
        builder.append(session.catalog_name(), schema);
    }
    builder.build().map_err(refused)
}

async fn tables(
    query: CommandGetTables,
    session: &Session,
    types: WireTypes,
) -> Result<RecordBatch, Status> {
    let include_schema = query.include_schema;
    // An empty catalog means tables outside any catalog, of which there are none.
    let elsewhere = query.catalog.as_deref().is_some_and(|name| name != session.catalog_name());
    let filter = TableFilter {
        schema_pattern: query.db_schema_filter_pattern.clone(),
        name_pattern: query.table_name_filter_pattern.clone(),
        kinds: (!query.table_types.is_empty()).then(|| query.table_types.clone()),
        with_columns: include_schema,
    };
    // The session has applied the patterns; the builder is left with ordering and encoding.
    let unfiltered = CommandGetTables { include_schema, ..CommandGetTables::default() };
    let mut builder = unfiltered.into_builder();
    if !elsewhere {
        let tables = session.tables(&filter).await.map_err(|error| status::from_sql(&error))?;
        for table in tables {
            // A table that cannot be read now is listed without columns.
            let columns = table.columns.unwrap_or_else(|| Arc::new(Schema::empty()));
            let path = [session.catalog_name(), table.schema.as_str(), table.name.as_str()];
            // Which tables may be changed, the rights say; a view never can.
            let read_only = (table.kind != "TABLE").then_some(true);
            let columns = described(&wire_schema(&columns, types), path, read_only);
            builder
                .append(session.catalog_name(), &table.schema, &table.name, table.kind, &columns)
                .map_err(refused)?;
        }
    }
    builder.build().map_err(refused)
}

/// A pattern that is no LIKE pattern is the client's fault; nothing else fails in the builders.
fn refused(error: FlightError) -> Status {
    match error {
        FlightError::Arrow(error) => {
            status::malformed(&format!("the filter cannot be applied: {error}"))
        }
        other => status::internal(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{
        CommandGetCatalogs, CommandGetCrossReference, CommandGetPrimaryKeys, CommandGetTableTypes,
    };

    use super::*;

    /// `name:type` with `?` for a column that may be null.
    fn announced(command: &Command) -> Vec<String> {
        let schema = schema(command).unwrap();
        schema
            .fields()
            .iter()
            .map(|field| {
                let mark = if field.is_nullable() { "?" } else { "" };
                format!("{}:{}{mark}", field.name(), field.data_type())
            })
            .collect()
    }

    #[test]
    fn schemas_are_those_of_the_protocol() {
        let catalogs = Command::CommandGetCatalogs(CommandGetCatalogs {});
        assert_eq!(announced(&catalogs), ["catalog_name:Utf8"]);
        let schemas = Command::CommandGetDbSchemas(CommandGetDbSchemas::default());
        assert_eq!(announced(&schemas), ["catalog_name:Utf8?", "db_schema_name:Utf8"]);
        let types = Command::CommandGetTableTypes(CommandGetTableTypes {});
        assert_eq!(announced(&types), ["table_type:Utf8"]);
        let tables = CommandGetTables { include_schema: true, ..Default::default() };
        assert_eq!(
            announced(&Command::CommandGetTables(tables)),
            [
                "catalog_name:Utf8?",
                "db_schema_name:Utf8?",
                "table_name:Utf8",
                "table_type:Utf8",
                "table_schema:Binary"
            ]
        );
        let keys = Command::CommandGetPrimaryKeys(CommandGetPrimaryKeys::default());
        assert_eq!(announced(&keys)[4..], ["key_sequence:Int32", "key_name:Utf8?"]);
        let keys = Command::CommandGetCrossReference(CommandGetCrossReference::default());
        assert_eq!(
            announced(&keys)[8..],
            [
                "key_sequence:Int32",
                "fk_key_name:Utf8?",
                "pk_key_name:Utf8?",
                "update_rule:UInt8",
                "delete_rule:UInt8"
            ]
        );
    }

    #[test]
    fn a_statement_is_no_metadata() {
        let query = arrow_flight::sql::CommandStatementQuery::default();
        assert!(schema(&Command::CommandStatementQuery(query)).is_none());
    }

    #[test]
    fn table_types_are_sorted() {
        assert!(TABLE_TYPES.is_sorted());
    }
}
