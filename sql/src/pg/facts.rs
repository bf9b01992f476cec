//! What is true of every PostgreSQL: its types, operators and functions, as a fresh one has them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::{Int32Type, Schema};
use datafusion_pg_catalog::pg_catalog::oid_field::{kind, oid_field};
use datafusion_pg_catalog::pg_catalog::{ArrowTable, PgCatalogStaticTables};

use crate::error::{Error, Result};

macro_rules! named {
    ($facts:expr, $name:expr, $($field:ident)+) => {
        match $name {
            $(stringify!($field) => Some($facts.$field.as_ref()),)+
            _ => None,
        }
    };
}

/// Tables that describe PostgreSQL itself.
pub(super) fn filled<'a>(facts: &'a PgCatalogStaticTables, name: &str) -> Option<&'a ArrowTable> {
    named!(facts, name,
        pg_aggregate pg_am pg_amop pg_amproc pg_cast pg_collation pg_conversion pg_language
        pg_opclass pg_operator pg_opfamily pg_proc pg_range pg_tablespace pg_ts_config pg_ts_dict
        pg_ts_parser pg_ts_template)
}

/// Tables for things that Attune does not have: keys, triggers, comments and so on.
pub(super) fn unfilled<'a>(facts: &'a PgCatalogStaticTables, name: &str) -> Option<&'a ArrowTable> {
    named!(facts, name,
        pg_attrdef pg_auth_members pg_constraint pg_db_role_setting pg_default_acl pg_depend
        pg_description pg_enum pg_event_trigger pg_extension pg_foreign_data_wrapper
        pg_foreign_server pg_foreign_table pg_index pg_inherits pg_init_privs pg_largeobject
        pg_largeobject_metadata pg_partitioned_table pg_policy pg_publication
        pg_publication_namespace pg_publication_rel pg_replication_origin pg_rewrite pg_seclabel
        pg_sequence pg_shdepend pg_shdescription pg_shseclabel pg_statistic pg_statistic_ext
        pg_statistic_ext_data pg_subscription pg_subscription_rel pg_trigger pg_user_mapping)
}

/// `pg_type`, whose receiving functions are numbers: drivers join them to find the arrays.
///
/// # Errors
/// When the tables do not have the columns that they should.
pub(super) fn types(facts: &PgCatalogStaticTables) -> Result<RecordBatch> {
    let lacks = |what: &str| Error::Internal(format!("PostgreSQL's facts lack {what}"));
    let functions = facts.pg_proc.data();
    let mut numbers: HashMap<&str, i32> = HashMap::new();
    for batch in functions {
        let oids = batch.column_by_name("oid").ok_or_else(|| lacks("pg_proc.oid"))?;
        let names = batch.column_by_name("proname").ok_or_else(|| lacks("pg_proc.proname"))?;
        let oids = oids.as_primitive::<Int32Type>().values();
        numbers.extend(names.as_string::<i32>().iter().flatten().zip(oids.iter().copied()));
    }
    let types = arrow::compute::concat_batches(&facts.pg_type.schema(), facts.pg_type.data())?;
    let (schema, mut columns, _) = types.into_parts();
    let mut fields = schema.fields().to_vec();
    let place = schema.index_of("typreceive")?;
    let names = columns[place].as_string::<i32>();
    let received = names.iter().map(|name| name.and_then(|name| numbers.get(name).copied()));
    let received: Int32Array = received.map(|oid| Some(oid.unwrap_or(0))).collect();
    columns[place] = Arc::new(received) as ArrayRef;
    fields[place] = Arc::new(oid_field("typreceive", kind::OID, true));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
