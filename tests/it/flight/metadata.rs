//! What browsers of a catalog see, with the schemas that the protocol fixes.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow_flight::sql::{
    Any, Command, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandStatementQuery, ProstMessageExt, SqlInfo,
};
use arrow_flight::{FlightInfo, IpcMessage};
use futures::TryStreamExt;
use prost::Message;

use super::statements::authorized;
use super::support::{self, Client, TestServer, fetch, schema, start};

/// An expression of every type that DataFusion returns, plain and nested.
fn every_type() -> Vec<String> {
    use DataType as T;
    let item = |kind: T| Arc::new(Field::new("item", kind, true));
    let runs = T::RunEndEncoded(
        Arc::new(Field::new("run_ends", T::Int32, false)),
        Arc::new(Field::new("values", T::Utf8, true)),
    );
    let dictionary = T::Dictionary(Box::new(T::Int32), Box::new(T::Utf8));
    let zone = |unit| T::Timestamp(unit, Some("+02:00".into()));
    let cast = |value: &str, kind: &T| {
        format!("arrow_cast({value}, '{}')", kind.to_string().replace('\'', "''"))
    };
    let mut expressions = Vec::new();
    for kind in [T::Utf8, T::LargeUtf8, T::Utf8View, T::Binary, T::BinaryView, T::LargeBinary] {
        expressions.push(cast("'a'", &kind));
        expressions.push(format!("make_array({})", cast("'a'", &kind)));
        expressions.push(format!("named_struct('inner', make_array({}))", cast("'a'", &kind)));
    }
    for kind in [dictionary.clone(), runs] {
        expressions.push(cast("'a'", &kind));
    }
    expressions.push(format!("make_array({})", cast("'a'", &dictionary)));
    let numbers =
        [T::Int8, T::Int16, T::Int32, T::Int64, T::UInt8, T::UInt16, T::UInt32, T::UInt64];
    let fractions = [T::Float16, T::Float32, T::Float64];
    let decimals =
        [T::Decimal32(5, 2), T::Decimal64(12, 2), T::Decimal128(20, 3), T::Decimal256(50, 4)];
    for kind in numbers.into_iter().chain(fractions).chain(decimals) {
        expressions.push(cast("1", &kind));
        expressions.push(format!("make_array({})", cast("1", &kind)));
    }
    for unit in
        [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond]
    {
        expressions.push(cast("1", &T::Duration(unit)));
        expressions.push(cast("TIMESTAMP '2026-11-24 12:00:00'", &T::Timestamp(unit, None)));
        expressions.push(cast("TIMESTAMP '2026-11-24 12:00:00'", &zone(unit)));
    }
    for text in
        ["DATE '2026-11-24'", "TIME '12:00:00'", "INTERVAL '1 month 2 days'", "NULL", "true"]
    {
        expressions.push(text.to_owned());
    }
    expressions.push(cast("DATE '2026-11-24'", &T::Date64));
    for kind in [
        T::LargeList(item(T::Int64)),
        T::ListView(item(T::Utf8View)),
        T::LargeListView(item(T::Decimal32(3, 0))),
        T::FixedSizeList(item(T::Utf8View), 1),
    ] {
        expressions.push(cast("make_array(1)", &kind));
    }
    expressions.push(format!("map(['k'], [{}])", cast("'v'", &T::Utf8View)));
    expressions
}

/// A server with a view whose columns have every type there is.
async fn with_view() -> (TestServer, Client) {
    let server = start().await;
    let mut root = server.login("root").await;
    let columns: Vec<String> =
        every_type().iter().zip(1..).map(|(text, number)| format!("{text} AS c{number}")).collect();
    let text = format!(
        "CREATE VIEW odd AS SELECT arrow_cast('a', 'Utf8View') AS word, \
        arrow_cast('b', 'Dictionary(Int32, Utf8)') AS code, \
        make_array(arrow_cast('c', 'Utf8View')) AS words, \
        arrow_cast('d', 'BinaryView') AS bytes, 1 AS number, {}",
        columns.join(", ")
    );
    root.execute_update(text, None).await.unwrap();
    (server, root)
}

/// The rows of a metadata answer, after checking that every call announces the same schema.
async fn browse(client: &mut Client, info: FlightInfo) -> RecordBatch {
    let announced = schema(&info);
    let request = authorized(client, info.flight_descriptor.clone().unwrap());
    let alone = client.inner_mut().get_schema(request).await.unwrap().into_inner();
    assert_eq!(Schema::try_from(alone).unwrap(), announced);
    let batches = fetch(client, &info).await.unwrap();
    assert!(batches.iter().all(|batch| batch.schema().as_ref() == &announced));
    arrow::compute::concat_batches(&Arc::new(announced), &batches).unwrap()
}

#[tokio::test]
async fn catalogs_schemas_and_types() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let info = client.get_catalogs().await.unwrap();
    let catalogs = browse(&mut client, info).await;
    assert_eq!(catalogs.column(0).as_string::<i32>().value(0), "attune");
    let info = client.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    let schemas = browse(&mut client, info).await;
    assert!(schemas.column(1).as_string::<i32>().iter().any(|name| name == Some("main")));
    let none =
        CommandGetDbSchemas { catalog: Some("another".into()), ..CommandGetDbSchemas::default() };
    let info = client.get_db_schemas(none).await.unwrap();
    assert_eq!(browse(&mut client, info).await.num_rows(), 0);
    let info = client.get_table_types().await.unwrap();
    assert_eq!(browse(&mut client, info).await.num_rows(), 3);
}

#[tokio::test]
async fn tables_are_found_by_pattern_and_type() {
    let (server, mut client) = with_view().await;
    client.execute_update("CREATE TABLE plain AS SELECT 1 AS n".into(), None).await.unwrap();
    for (schema, name, catalog, expected) in [
        (None, Some("pla%"), None, 1),
        (Some("main"), Some("plain"), Some("attune"), 1),
        (Some("nowhere"), Some("plain"), None, 0),
        (None, Some("plain"), Some(""), 0),
        (None, Some("PLAIN"), None, 0),
        (None, Some("p_ain"), None, 1),
        (None, Some("pl\\_in"), None, 0),
        (None, Some(""), None, 0),
        (Some(""), Some("plain"), None, 0),
        (Some("%"), Some("%lai%"), Some("attune"), 1),
    ] {
        let query = CommandGetTables {
            catalog: catalog.map(String::from),
            db_schema_filter_pattern: schema.map(String::from),
            table_name_filter_pattern: name.map(String::from),
            table_types: vec!["TABLE".into()],
            include_schema: false,
        };
        let info = client.get_tables(query).await.unwrap();
        let found = browse(&mut client, info).await;
        assert_eq!(found.num_rows(), expected, "{schema:?} {name:?} {catalog:?}");
        assert_eq!(found.num_columns(), 4);
    }
    drop(server);
}

#[tokio::test]
async fn columns_say_what_jdbc_asks_for() {
    let (_server, mut client) = with_view().await;
    let create = "CREATE TABLE prices AS SELECT CAST(1 AS DECIMAL(10, 2)) AS price, 'x' AS label";
    client.execute_update(create.into(), None).await.unwrap();
    let query = CommandGetTables {
        table_name_filter_pattern: Some("prices".into()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(query).await.unwrap();
    let found = browse(&mut client, info).await;
    let bytes = found.column(4).as_binary::<i32>().value(0).to_vec();
    let columns = Schema::try_from(IpcMessage(bytes.into())).unwrap();
    let said = |column: usize, key: &str| {
        columns.field(column).metadata().get(&format!("ARROW:FLIGHT:SQL:{key}")).cloned()
    };
    for (key, value) in [
        ("TABLE_NAME", "prices"),
        ("TYPE_NAME", "DECIMAL"),
        ("PRECISION", "10"),
        ("SCALE", "2"),
        ("IS_AUTO_INCREMENT", "0"),
    ] {
        assert_eq!(said(0, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(said(1, "TYPE_NAME").as_deref(), Some("VARCHAR"));
}

#[tokio::test]
async fn the_functions_listed_are_those_of_the_engine() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let kinds = vec![
        SqlInfo::SqlNumericFunctions,
        SqlInfo::SqlStringFunctions,
        SqlInfo::SqlDatetimeFunctions,
        SqlInfo::SqlSystemFunctions,
    ];
    let info = client.get_sql_info(kinds).await.unwrap();
    let batch = browse(&mut client, info).await;
    let union = batch.column(1).as_any().downcast_ref::<arrow::array::UnionArray>().unwrap();
    let mut listed = std::collections::BTreeSet::new();
    for row in 0..batch.num_rows() {
        let names = union.value(row);
        let names = names.as_list::<i32>().value(0);
        listed.extend(names.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    let documented = server.engine.functions_documentation();
    for function in documented.iter().filter(|function| function.kind == "scalar") {
        assert!(listed.contains(&function.name), "{} is missing", function.name);
    }
    assert!(listed.contains("current_user") && !listed.contains("sum"));
}

#[tokio::test]
async fn there_are_no_keys_and_the_answers_are_typed() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let info = client.get_primary_keys(CommandGetPrimaryKeys::default()).await.unwrap();
    let keys = browse(&mut client, info).await;
    assert_eq!(keys.num_rows(), 0);
    assert_eq!(
        columns(&keys.schema()),
        [
            "catalog_name: Utf8?",
            "db_schema_name: Utf8?",
            "table_name: Utf8",
            "column_name: Utf8",
            "key_sequence: Int32",
            "key_name: Utf8?",
        ]
    );
    let exported = client.get_exported_keys(CommandGetExportedKeys::default()).await.unwrap();
    let imported = client.get_imported_keys(CommandGetImportedKeys::default()).await.unwrap();
    let cross = client.get_cross_reference(CommandGetCrossReference::default()).await.unwrap();
    for info in [exported, imported, cross] {
        let keys = browse(&mut client, info).await;
        assert_eq!(keys.num_rows(), 0);
        assert_eq!(
            columns(&keys.schema()),
            [
                "pk_catalog_name: Utf8?",
                "pk_db_schema_name: Utf8?",
                "pk_table_name: Utf8",
                "pk_column_name: Utf8",
                "fk_catalog_name: Utf8?",
                "fk_db_schema_name: Utf8?",
                "fk_table_name: Utf8",
                "fk_column_name: Utf8",
                "key_sequence: Int32",
                "fk_key_name: Utf8?",
                "pk_key_name: Utf8?",
                "update_rule: UInt8",
                "delete_rule: UInt8",
            ]
        );
    }
}

/// Names and types as `FlightSql.proto` has them; `?` where NULL may be.
fn columns(schema: &Schema) -> Vec<String> {
    let column = |field: &Arc<Field>| {
        let mark = if field.is_nullable() { "?" } else { "" };
        format!("{}: {}{mark}", field.name(), field.data_type())
    };
    schema.fields().iter().map(column).collect()
}

#[tokio::test]
async fn facts_and_types_are_complete() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let info = client.get_sql_info(Vec::new()).await.unwrap();
    assert!(browse(&mut client, info).await.num_rows() >= 91);
    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerName]).await.unwrap();
    assert_eq!(browse(&mut client, info).await.num_rows(), 1);
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo::default()).await.unwrap();
    let types = browse(&mut client, info).await;
    assert!(types.num_rows() > 10 && types.num_columns() == 19);
}

/// The schema of `SELECT * FROM odd` from each place that announces it.
async fn five_schemas(client: &mut Client) -> Vec<Arc<Schema>> {
    let text = "SELECT * FROM odd";
    let info = client.execute(text.into(), None).await.unwrap();
    let by_info = Arc::new(schema(&info));
    let command = CommandStatementQuery { query: text.into(), transaction_id: None };
    let request = authorized_with_views(client, support::descriptor(&command));
    let by_schema = client.inner_mut().get_schema(request).await.unwrap().into_inner();
    let by_schema = Arc::new(Schema::try_from(by_schema).unwrap());
    let prepared = client.prepare(text.into(), None).await.unwrap();
    let by_prepared = Arc::new(prepared.dataset_schema().unwrap().clone());
    let query = CommandGetTables {
        table_name_filter_pattern: Some("odd".into()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let tables = client.get_tables(query).await.unwrap();
    let tables = fetch(client, &tables).await.unwrap();
    let bytes = tables[0].column(4).as_binary::<i32>().value(0).to_vec();
    let by_tables = undescribed(&Schema::try_from(IpcMessage(bytes.into())).unwrap());
    let stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
    vec![by_info, by_schema, by_prepared, by_tables, batches[0].schema()]
}

/// GetTables describes its columns to JDBC and ODBC in their metadata; without that they are those
/// of the other four.
fn undescribed(schema: &Schema) -> Arc<Schema> {
    let fields = schema.fields().iter().map(|field| {
        let mut metadata = field.metadata().clone();
        let before = metadata.len();
        metadata.retain(|key, _| !key.starts_with("ARROW:FLIGHT:SQL:"));
        assert!(before > metadata.len(), "{field} is not described");
        field.as_ref().clone().with_metadata(metadata)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

thread_local! {
    static VIEWS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn authorized_with_views<T>(client: &Client, message: T) -> tonic::Request<T> {
    let mut request = authorized(client, message);
    if VIEWS.get() {
        request.metadata_mut().insert("attune-string-views", "true".parse().unwrap());
    }
    request
}

#[tokio::test]
async fn all_five_schemas_agree() {
    let (_server, mut client) = with_view().await;
    let schemas = five_schemas(&mut client).await;
    assert!(schemas.iter().all(|schema| schema == &schemas[0]), "{schemas:#?}");
    let types: Vec<&DataType> = schemas[0].fields().iter().map(|f| f.data_type()).collect();
    assert_eq!(types[0], &DataType::Utf8);
    assert_eq!(types[1], &DataType::Utf8);
    assert!(matches!(types[2], DataType::List(item) if item.data_type() == &DataType::Utf8));
    assert_eq!(types[3], &DataType::Binary);
    for unknown in
        ["View", "Dictionary", "RunEnd", "Decimal32", "Decimal64", "Float16", "LargeList"]
    {
        let found = types.iter().find(|kind| kind.to_string().contains(unknown));
        assert_eq!(found, None, "{unknown}");
    }

    client.set_header("attune-string-views", "true");
    VIEWS.set(true);
    let schemas = five_schemas(&mut client).await;
    assert!(schemas.iter().all(|schema| schema == &schemas[0]), "{schemas:#?}");
    assert_eq!(schemas[0].field(0).data_type(), &DataType::Utf8View);
    assert_eq!(schemas[0].field(1).data_type(), &DataType::Utf8);
}

#[tokio::test]
async fn all_five_schemas_agree_for_a_java_client() {
    let (server, _client) = with_view().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address));
    let endpoint = endpoint.unwrap().user_agent("grpc-java-netty/1.71.0").unwrap();
    let mut client = Client::new(endpoint.connect().await.unwrap());
    client.handshake("root", "root-secret").await.unwrap();
    let schemas = five_schemas(&mut client).await;
    // The four that are results describe their columns too, and in the same words.
    for announced in &schemas[..3] {
        assert_eq!(announced, &schemas[4]);
    }
    assert_eq!(undescribed(&schemas[4]), schemas[3]);
    let types: Vec<String> =
        schemas[0].fields().iter().map(|field| field.data_type().to_string()).collect();
    assert!(types.iter().all(|kind| !kind.contains("UInt")), "{types:?}");
    let numbers = ["Int16", "Int32", "Int64", "Decimal128(20, 0)"];
    assert!(numbers.iter().all(|kind| types.iter().any(|found| found == kind)), "{types:?}");
}

#[test]
fn commands_keep_their_names() {
    let any = CommandGetTables::default().as_any();
    let command = Command::try_from(Any::decode(any.encode_to_vec().as_slice()).unwrap()).unwrap();
    assert!(matches!(command, Command::CommandGetTables(_)));
}
