//! The tables of `pg_catalog` that are made of what the principal sees.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Int16Array, Int32Array, Int64Array, RecordBatch,
    StringArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema};
use catalog::policy::Role;
use datafusion_pg_catalog::pg_catalog::oid_field::{kind, oid_field};

use super::types::{element_of, length_of, modifier_of, oid_of};
use crate::engine::CATALOG;
use crate::error::Result;
use crate::session::{StatementContext, TableInfo};

/// The number of the database, and of the role that owns everything.
const DATABASE: i32 = 16_000;
const OWNER: i32 = 10;
/// The number of the role that asks.
const SELF: i32 = 16_001;
/// The name of the role that owns everything.
pub(super) const OWNER_NAME: &str = "attune";

/// Columns of a table under construction.
pub(super) struct Columns {
    rows: usize,
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    pub(super) fn of(rows: usize) -> Self {
        Self { rows, fields: Vec::new(), arrays: Vec::new() }
    }

    fn push(mut self, field: Field, array: ArrayRef) -> Self {
        self.fields.push(field);
        self.arrays.push(array);
        self
    }

    pub(super) fn plain(self, name: &str, array: ArrayRef) -> Self {
        let field = Field::new(name, array.data_type().clone(), true);
        self.push(field, array)
    }

    pub(super) fn texts<T: Into<String>>(
        self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        let values = values.into_iter().map(|value| value.into());
        self.plain(name, Arc::new(StringArray::from_iter_values(values)))
    }

    fn oids(self, name: &str, values: impl IntoIterator<Item = i32>) -> Self {
        let array = Arc::new(Int32Array::from_iter_values(values));
        self.push(oid_field(name, kind::OID, true), array)
    }

    /// The same text, truth or number in every row; NULL as a text where it says so.
    pub(super) fn same(mut self, values: &[(&str, Same)]) -> Self {
        for (name, value) in values {
            let rows = self.rows;
            let array: ArrayRef = match value {
                Same::Text(text) => Arc::new(StringArray::from_iter_values(vec![*text; rows])),
                Same::NoText => new_null_array(&DataType::Utf8, rows),
                Same::NoTexts => new_null_array(&DataType::new_list(DataType::Utf8, true), rows),
                Same::Is(truth) => Arc::new(BooleanArray::from(vec![*truth; rows])),
                Same::Small(number) => Arc::new(Int16Array::from(vec![*number; rows])),
                Same::Number(number) => Arc::new(Int32Array::from(vec![*number; rows])),
                Same::NoNumber => new_null_array(&DataType::Int32, rows),
                Same::Big(number) => Arc::new(Int64Array::from(vec![*number; rows])),
                Same::Oid(number) => {
                    self = self.oids(name, vec![*number; rows]);
                    continue;
                }
            };
            self = self.plain(name, array);
        }
        self
    }

    pub(super) fn batch(self) -> Result<RecordBatch> {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.rows));
        let schema = Arc::new(Schema::new(self.fields));
        Ok(RecordBatch::try_new_with_options(schema, self.arrays, &options)?)
    }
}

/// A value that all rows have.
pub(super) enum Same {
    Text(&'static str),
    NoText,
    NoTexts,
    Is(bool),
    Small(i16),
    Number(i32),
    NoNumber,
    Big(i64),
    Oid(i32),
}

use Same::{Big, Is, NoNumber, NoText, NoTexts, Number, Oid, Small, Text};

/// A table by its name; `None` when it is not one of these.
pub(super) async fn table(
    context: &Arc<StatementContext>,
    name: &str,
) -> Result<Option<RecordBatch>> {
    let batch = match name {
        "pg_namespace" => namespaces(context)?,
        "pg_class" => classes(context, &visible(context).await?)?,
        "pg_attribute" => attributes(context, &visible(context).await?)?,
        "pg_database" => databases()?,
        "pg_roles" | "pg_authid" => roles(context)?,
        "pg_user" => users(context)?,
        "pg_tables" => tables(&visible(context).await?)?,
        "pg_views" => views(&visible(context).await?)?,
        "pg_settings" => settings(context)?,
        "pg_matviews" => materialized()?,
        "pg_stat_user_tables" => statistics()?,
        "pg_replication_slots" => replication()?,
        _ => return Ok(None),
    };
    Ok(Some(batch))
}

/// Every table that the principal sees, with its columns. The catalogs do not list themselves.
pub(super) async fn visible(context: &Arc<StatementContext>) -> Result<Vec<TableInfo>> {
    let listed = context.listed().await?;
    let readable = listed.iter().filter(|table| table.columns.is_some());
    let own = [super::PG_CATALOG, "information_schema"];
    Ok(readable.filter(|table| !own.contains(&table.schema.as_str())).cloned().collect())
}

/// Attune's system tables are made on demand, as views are.
fn is_view(table: &TableInfo) -> bool {
    table.kind != "TABLE"
}

fn namespaces(context: &Arc<StatementContext>) -> Result<RecordBatch> {
    let mut schemas = context.schemas();
    if !schemas.iter().any(|schema| schema == super::PG_CATALOG) {
        schemas.push(super::PG_CATALOG.to_owned());
    }
    let oids = &context.engine().postgres().oids;
    Columns::of(schemas.len())
        .oids("oid", schemas.iter().map(|schema| oids.schema(schema)))
        .texts("nspname", schemas.iter().map(String::as_str))
        .same(&[("nspowner", Oid(OWNER)), ("nspacl", NoTexts)])
        .batch()
}

fn classes(context: &Arc<StatementContext>, tables: &[TableInfo]) -> Result<RecordBatch> {
    let oids = &context.engine().postgres().oids;
    let count = |table: &TableInfo| table.columns.as_ref().map_or(0, |c| c.fields().len());
    Columns::of(tables.len())
        .oids("oid", tables.iter().map(|table| oids.table(&table.schema, &table.name)))
        .texts("relname", tables.iter().map(|table| table.name.as_str()))
        .oids("relnamespace", tables.iter().map(|table| oids.schema(&table.schema)))
        .same(&[
            ("reltype", Oid(0)),
            ("reloftype", Oid(0)),
            ("relowner", Oid(OWNER)),
            ("relam", Oid(0)),
            ("relfilenode", Oid(0)),
            ("reltablespace", Oid(0)),
            ("relpages", Number(0)),
        ])
        .plain("reltuples", Arc::new(Float32Array::from(vec![-1.0; tables.len()])))
        .same(&[
            ("relallvisible", Number(0)),
            ("reltoastrelid", Oid(0)),
            ("relhasindex", Is(false)),
            ("relisshared", Is(false)),
            ("relpersistence", Text("p")),
        ])
        .texts("relkind", tables.iter().map(|table| if is_view(table) { "v" } else { "r" }))
        .plain(
            "relnatts",
            Arc::new(Int16Array::from_iter_values(
                tables.iter().map(|table| i16::try_from(count(table)).unwrap_or(i16::MAX)),
            )),
        )
        .same(&[
            ("relchecks", Small(0)),
            ("relhasrules", Is(false)),
            ("relhastriggers", Is(false)),
            ("relhassubclass", Is(false)),
            ("relrowsecurity", Is(false)),
            ("relforcerowsecurity", Is(false)),
            ("relispopulated", Is(true)),
            ("relreplident", Text("d")),
            ("relispartition", Is(false)),
            ("relrewrite", Oid(0)),
            ("relfrozenxid", Number(0)),
            ("relminmxid", Number(0)),
            ("relacl", NoTexts),
            ("reloptions", NoTexts),
            ("relpartbound", NoText),
        ])
        .batch()
}

fn attributes(context: &Arc<StatementContext>, tables: &[TableInfo]) -> Result<RecordBatch> {
    let oids = &context.engine().postgres().oids;
    let mut owners = Vec::new();
    let mut fields = Vec::new();
    let mut numbers = Vec::new();
    for table in tables {
        let oid = oids.table(&table.schema, &table.name);
        for (field, number) in table.columns.iter().flat_map(|c| c.fields()).zip(1i16..) {
            owners.push(oid);
            fields.push(Arc::clone(field));
            numbers.push(number);
        }
    }
    let types: Vec<u32> = fields.iter().map(|field| oid_of(field)).collect();
    let lengths: Vec<i16> = types.iter().map(|oid| length_of(*oid)).collect();
    let short = |length: &i16| (1..=8).contains(length);
    Columns::of(fields.len())
        .oids("attrelid", owners)
        .texts("attname", fields.iter().map(|field| field.name().as_str()))
        .oids("atttypid", types.iter().map(|oid| *oid as i32))
        .same(&[("attstattarget", Number(-1))])
        .plain("attlen", Arc::new(Int16Array::from(lengths.clone())))
        .plain("attnum", Arc::new(Int16Array::from(numbers)))
        .plain(
            "attndims",
            Arc::new(Int32Array::from_iter_values(
                types.iter().map(|oid| i32::from(element_of(*oid).is_some())),
            )),
        )
        .same(&[("attcacheoff", Number(-1))])
        .plain(
            "atttypmod",
            Arc::new(Int32Array::from_iter_values(
                fields.iter().map(|field| modifier_of(field.data_type())),
            )),
        )
        .plain(
            "attbyval",
            Arc::new(lengths.iter().map(|length| Some(short(length))).collect::<BooleanArray>()),
        )
        .same(&[("attalign", Text("i")), ("attstorage", Text("p")), ("attcompression", Text(""))])
        .plain(
            "attnotnull",
            Arc::new(fields.iter().map(|f| Some(!f.is_nullable())).collect::<BooleanArray>()),
        )
        .same(&[
            ("atthasdef", Is(false)),
            ("atthasmissing", Is(false)),
            ("attidentity", Text("")),
            ("attgenerated", Text("")),
            ("attisdropped", Is(false)),
            ("attislocal", Is(true)),
            ("attinhcount", Number(0)),
            ("attcollation", Oid(0)),
            ("attacl", NoTexts),
            ("attoptions", NoTexts),
            ("attfdwoptions", NoTexts),
            ("attmissingval", NoText),
        ])
        .batch()
}

fn databases() -> Result<RecordBatch> {
    Columns::of(1)
        .same(&[
            ("oid", Oid(DATABASE)),
            ("datname", Text(CATALOG)),
            ("datdba", Oid(OWNER)),
            ("encoding", Number(6)),
            ("datlocprovider", Text("c")),
            ("datistemplate", Is(false)),
            ("datallowconn", Is(true)),
            ("datconnlimit", Number(-1)),
            ("datfrozenxid", Number(0)),
            ("datminmxid", Number(0)),
            ("dattablespace", Oid(1663)),
            ("datcollate", Text("C")),
            ("datctype", Text("C")),
            ("daticulocale", NoText),
            ("daticurules", NoText),
            ("datcollversion", NoText),
            ("datacl", NoTexts),
        ])
        .batch()
}

/// The role that owns everything, and the one that asks.
fn roles(context: &Arc<StatementContext>) -> Result<RecordBatch> {
    let principal = context.session().principal();
    let admin = context.rights().has(Role::Admin);
    let truths = |mine: bool| Arc::new(BooleanArray::from(vec![false, mine])) as ArrayRef;
    Columns::of(2)
        .texts("rolname", [OWNER_NAME, principal.name.as_str()])
        .plain("rolsuper", truths(admin))
        .same(&[("rolinherit", Is(true))])
        .plain("rolcreaterole", truths(admin))
        .same(&[("rolcreatedb", Is(false))])
        .plain("rolcanlogin", Arc::new(BooleanArray::from(vec![false, true])))
        .same(&[
            ("rolreplication", Is(false)),
            ("rolconnlimit", Number(-1)),
            ("rolpassword", Text("********")),
            ("rolvaliduntil", NoText),
            ("rolbypassrls", Is(false)),
            ("rolconfig", NoTexts),
        ])
        .oids("oid", [OWNER, SELF])
        .batch()
}

fn users(context: &Arc<StatementContext>) -> Result<RecordBatch> {
    let principal = context.session().principal();
    let admin = context.rights().has(Role::Admin);
    Columns::of(1)
        .texts("usename", [principal.name.as_str()])
        .same(&[
            ("usesysid", Oid(SELF)),
            ("usecreatedb", Is(false)),
            ("usesuper", Is(admin)),
            ("userepl", Is(false)),
            ("usebypassrls", Is(false)),
            ("passwd", Text("********")),
            ("valuntil", NoText),
            ("useconfig", NoTexts),
        ])
        .batch()
}

fn tables(tables: &[TableInfo]) -> Result<RecordBatch> {
    let tables: Vec<&TableInfo> = tables.iter().filter(|table| !is_view(table)).collect();
    Columns::of(tables.len())
        .texts("schemaname", tables.iter().map(|table| table.schema.as_str()))
        .texts("tablename", tables.iter().map(|table| table.name.as_str()))
        .same(&[
            ("tableowner", Text(OWNER_NAME)),
            ("tablespace", NoText),
            ("hasindexes", Is(false)),
            ("hasrules", Is(false)),
            ("hastriggers", Is(false)),
            ("rowsecurity", Is(false)),
        ])
        .batch()
}

fn views(tables: &[TableInfo]) -> Result<RecordBatch> {
    let views: Vec<&TableInfo> = tables.iter().filter(|table| is_view(table)).collect();
    Columns::of(views.len())
        .texts("schemaname", views.iter().map(|view| view.schema.as_str()))
        .texts("viewname", views.iter().map(|view| view.name.as_str()))
        .same(&[("viewowner", Text(OWNER_NAME)), ("definition", NoText)])
        .batch()
}

fn materialized() -> Result<RecordBatch> {
    Columns::of(0)
        .same(&[
            ("schemaname", NoText),
            ("matviewname", NoText),
            ("matviewowner", NoText),
            ("tablespace", NoText),
            ("hasindexes", Is(false)),
            ("ispopulated", Is(true)),
            ("definition", NoText),
        ])
        .batch()
}

fn statistics() -> Result<RecordBatch> {
    Columns::of(0)
        .same(&[
            ("relid", Oid(0)),
            ("schemaname", NoText),
            ("relname", NoText),
            ("seq_scan", Big(0)),
            ("seq_tup_read", Big(0)),
            ("idx_scan", Big(0)),
            ("n_live_tup", Big(0)),
            ("n_dead_tup", Big(0)),
        ])
        .batch()
}

fn replication() -> Result<RecordBatch> {
    Columns::of(0)
        .same(&[
            ("slot_name", NoText),
            ("plugin", NoText),
            ("slot_type", NoText),
            ("database", NoText),
            ("active", Is(false)),
        ])
        .batch()
}

fn settings(context: &Arc<StatementContext>) -> Result<RecordBatch> {
    let known = context.session().parameters();
    Columns::of(known.len())
        .texts("name", known.iter().map(|(name, _)| *name))
        .texts("setting", known.iter().map(|(_, value)| value.as_str()))
        .same(&[
            ("unit", NoText),
            ("category", Text("Client Connection Defaults")),
            ("short_desc", NoText),
            ("extra_desc", NoText),
            ("context", Text("user")),
            ("vartype", Text("string")),
            ("source", Text("session")),
            ("min_val", NoText),
            ("max_val", NoText),
            ("enumvals", NoTexts),
            ("boot_val", NoText),
            ("reset_val", NoText),
            ("sourcefile", NoText),
            ("sourceline", NoNumber),
            ("pending_restart", Is(false)),
        ])
        .batch()
}
