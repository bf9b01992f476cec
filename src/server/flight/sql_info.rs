//! What GetSqlInfo answers: every code of the protocol, with values that are true.
//!
//! The JDBC driver asks once for all codes and, before version 19, fails on each that is missing.
//! Which member of the union a value is in matters too: the driver casts, so an ordinal that the
//! protocol calls int32 is a `bigint_value` where Java's own server sends one. A limit of 0 means
//! no fixed limit or not known, as in `java.sql.DatabaseMetaData`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedGroupBy, SqlSupportedResultSetConcurrency, SqlSupportedResultSetType,
    SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions, SqlSupportsConvert,
    SqlTransactionIsolationLevel, SupportedSqlGrammar,
};
use sql::FunctionDoc;
use sql::functions::SESSION_FUNCTIONS;

/// Words beyond SQL:2003 that Attune reads as words of a statement.
const KEYWORDS: [&str; 13] = [
    "EXPECTATION",
    "EXPLAIN",
    "ILIKE",
    "LOCATION",
    "MODEL",
    "OPTIONS",
    "OVERWRITE",
    "RETRAIN",
    "SHOW",
    "STORED",
    "TRUNCATE",
    "USE",
    "VERSION",
];

/// The scalar functions by the four kinds that the protocol has.
#[derive(Debug, Default)]
struct Functions<'a> {
    numeric: BTreeSet<&'a str>,
    text: BTreeSet<&'a str>,
    datetime: BTreeSet<&'a str>,
    system: BTreeSet<&'a str>,
}

impl<'a> Functions<'a> {
    /// Sorts the engine's functions by their section. The protocol has no kind for lists, structs,
    /// privacy or models: they stand among the system functions, so that none is missing.
    fn of(documented: &'a [FunctionDoc]) -> Self {
        let mut functions = Self::default();
        for function in documented.iter().filter(|function| function.kind == "scalar") {
            let kind = match function.section.as_str() {
                "Math Functions" => &mut functions.numeric,
                "Time and Date Functions" => &mut functions.datetime,
                "String Functions"
                | "Regular Expression Functions"
                | "Binary String Functions"
                | "Hashing Functions"
                | "Identity Functions" => &mut functions.text,
                _ => &mut functions.system,
            };
            kind.insert(&function.name);
            kind.extend(function.aliases.iter().map(String::as_str));
        }
        functions.system.extend(SESSION_FUNCTIONS);
        functions
    }
}

/// The facts of this server.
pub struct SqlInfos {
    data: SqlInfoData,
    known: BTreeSet<u32>,
}

impl SqlInfos {
    /// `handle_ttl` is how long a prepared statement lives without use, `sql_bytes_max` how long a
    /// statement's text may be, `functions` what the engine has.
    pub fn new(
        handle_ttl: Duration,
        sql_bytes_max: usize,
        functions: &[FunctionDoc],
    ) -> Result<Self, FlightError> {
        let mut builder = Builder::default();
        server(&mut builder, handle_ttl);
        names(&mut builder, &Functions::of(functions));
        grammar(&mut builder);
        limits(&mut builder, sql_bytes_max);
        transactions_and_results(&mut builder);
        Ok(Self { data: builder.data.build()?, known: builder.known })
    }

    /// The facts asked for, all of them when no code is named; codes that do not exist are left
    /// out.
    pub fn batch(&self, codes: &[u32]) -> Result<RecordBatch, FlightError> {
        if codes.is_empty() {
            return self.data.record_batch([]);
        }
        let asked: BTreeSet<u32> =
            codes.iter().copied().filter(|code| self.known.contains(code)).collect();
        if asked.is_empty() {
            return Ok(RecordBatch::new_empty(self.data.schema()));
        }
        self.data.record_batch(asked)
    }
}

#[derive(Default)]
struct Builder {
    data: SqlInfoDataBuilder,
    known: BTreeSet<u32>,
}

impl Builder {
    fn mark(&mut self, info: SqlInfo) {
        self.known.insert((info as i32).unsigned_abs());
    }

    fn text(&mut self, info: SqlInfo, value: &str) {
        self.mark(info);
        self.data.append(info, value);
    }

    fn yes_no(&mut self, info: SqlInfo, value: bool) {
        self.mark(info);
        self.data.append(info, value);
    }

    /// A 64-bit number; 0 for "no fixed limit".
    fn number(&mut self, info: SqlInfo, value: i64) {
        self.mark(info);
        self.data.append(info, value);
    }

    /// A 32-bit number or a set of bits.
    fn int32(&mut self, info: SqlInfo, value: i32) {
        self.mark(info);
        self.data.append(info, value);
    }

    fn list<'a>(&mut self, info: SqlInfo, values: impl IntoIterator<Item = &'a str>) {
        self.mark(info);
        let values: Vec<&str> = values.into_iter().collect();
        self.data.append(info, values.as_slice());
    }
}

/// A set of bits from the positions that an enumeration of the protocol gives.
fn bits(positions: &[i32]) -> i32 {
    positions.iter().fold(0, |set, position| set | (1 << position))
}

fn server(builder: &mut Builder, handle_ttl: Duration) {
    builder.text(SqlInfo::FlightSqlServerName, "Attune");
    builder.text(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.text(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    builder.yes_no(SqlInfo::FlightSqlServerReadOnly, false);
    builder.yes_no(SqlInfo::FlightSqlServerSql, true);
    builder.yes_no(SqlInfo::FlightSqlServerSubstrait, false);
    builder.text(SqlInfo::FlightSqlServerSubstraitMinVersion, "");
    builder.text(SqlInfo::FlightSqlServerSubstraitMaxVersion, "");
    builder.int32(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    builder.yes_no(SqlInfo::FlightSqlServerCancel, true);
    builder.yes_no(SqlInfo::FlightSqlServerBulkIngestion, true);
    builder.yes_no(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    let timeout_ms = i32::try_from(handle_ttl.as_millis()).unwrap_or(i32::MAX);
    builder.int32(SqlInfo::FlightSqlServerStatementTimeout, timeout_ms);
    builder.int32(SqlInfo::FlightSqlServerTransactionTimeout, 0);
}

fn names(builder: &mut Builder, functions: &Functions<'_>) {
    let lower = SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i64;
    let exact = SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i64;
    builder.yes_no(SqlInfo::SqlDdlCatalog, false);
    builder.yes_no(SqlInfo::SqlDdlSchema, false);
    builder.yes_no(SqlInfo::SqlDdlTable, true);
    builder.number(SqlInfo::SqlIdentifierCase, lower);
    builder.text(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // Quoted names keep their case; the protocol has no word for that.
    builder.number(SqlInfo::SqlQuotedIdentifierCase, exact);
    // A policy may refuse a table that is listed.
    builder.yes_no(SqlInfo::SqlAllTablesAreSelectable, false);
    builder.number(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i64);
    builder.list(SqlInfo::SqlKeywords, KEYWORDS);
    builder.list(SqlInfo::SqlNumericFunctions, functions.numeric.iter().copied());
    builder.list(SqlInfo::SqlStringFunctions, functions.text.iter().copied());
    builder.list(SqlInfo::SqlSystemFunctions, functions.system.iter().copied());
    builder.list(SqlInfo::SqlDatetimeFunctions, functions.datetime.iter().copied());
    builder.text(SqlInfo::SqlSearchStringEscape, "\\");
    builder.text(SqlInfo::SqlExtraNameCharacters, "$");
    builder.text(SqlInfo::SqlSchemaTerm, "schema");
    builder.text(SqlInfo::SqlProcedureTerm, "procedure");
    builder.text(SqlInfo::SqlCatalogTerm, "catalog");
    builder.yes_no(SqlInfo::SqlCatalogAtStart, true);
    builder.int32(SqlInfo::SqlSchemasSupportedActions, 0);
    builder.int32(SqlInfo::SqlCatalogsSupportedActions, 0);
}

fn grammar(builder: &mut Builder) {
    builder.yes_no(SqlInfo::SqlSupportsColumnAliasing, true);
    builder.yes_no(SqlInfo::SqlNullPlusNullIsNull, true);
    builder.mark(SqlInfo::SqlSupportsConvert);
    builder.data.append(SqlInfo::SqlSupportsConvert, conversions());
    builder.yes_no(SqlInfo::SqlSupportsTableCorrelationNames, true);
    builder.yes_no(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    builder.yes_no(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    builder.yes_no(SqlInfo::SqlSupportsOrderByUnrelated, true);
    let group_by = bits(&[
        SqlSupportedGroupBy::SqlGroupByUnrelated as i32,
        SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32,
    ]);
    builder.int32(SqlInfo::SqlSupportedGroupBy, group_by);
    builder.yes_no(SqlInfo::SqlSupportsLikeEscapeClause, true);
    builder.yes_no(SqlInfo::SqlSupportsNonNullableColumns, true);
    let levels = bits(&[
        SupportedSqlGrammar::SqlMinimumGrammar as i32,
        SupportedSqlGrammar::SqlCoreGrammar as i32,
    ]);
    builder.int32(SqlInfo::SqlSupportedGrammar, levels);
    // Position 0 is ANSI92_ENTRY_SQL, whose enumeration arrow-flight does not export.
    builder.int32(SqlInfo::SqlAnsi92SupportedLevel, bits(&[0]));
    builder.yes_no(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    let joins = bits(&[
        SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32,
        SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
    ]);
    builder.int32(SqlInfo::SqlOuterJoinsSupportLevel, joins);
    builder.int32(SqlInfo::SqlSupportedPositionedCommands, 0);
    builder.yes_no(SqlInfo::SqlSelectForUpdateSupported, false);
    builder.yes_no(SqlInfo::SqlStoredProceduresSupported, false);
    let subqueries = bits(&[
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
        SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
        SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
    ]);
    builder.int32(SqlInfo::SqlSupportedSubqueries, subqueries);
    builder.yes_no(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    let unions =
        bits(&[SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32]);
    builder.int32(SqlInfo::SqlSupportedUnions, unions);
}

fn limits(builder: &mut Builder, sql_bytes_max: usize) {
    for info in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        builder.number(info, 0);
    }
    let text_max = i64::try_from(sql_bytes_max).unwrap_or(i64::MAX);
    builder.number(SqlInfo::SqlMaxStatementLength, text_max);
    builder.yes_no(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
}

fn transactions_and_results(builder: &mut Builder) {
    let none = SqlTransactionIsolationLevel::SqlTransactionNone as i32;
    builder.number(SqlInfo::SqlDefaultTransactionIsolation, i64::from(none));
    builder.yes_no(SqlInfo::SqlTransactionsSupported, false);
    builder.int32(SqlInfo::SqlSupportedTransactionsIsolationLevels, bits(&[none]));
    builder.yes_no(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    builder.yes_no(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    let forward = SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32;
    builder.int32(SqlInfo::SqlSupportedResultSetTypes, bits(&[forward]));
    let read = SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32;
    builder.int32(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, bits(&[read]));
    builder.int32(SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, 0);
    builder.int32(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0);
    builder.int32(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0);
    builder.yes_no(SqlInfo::SqlBatchUpdatesSupported, true);
    builder.yes_no(SqlInfo::SqlSavepointsSupported, false);
    builder.yes_no(SqlInfo::SqlNamedParametersSupported, false);
    builder.yes_no(SqlInfo::SqlLocatorsUpdateCopy, false);
    builder.yes_no(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

/// What CAST converts: numbers, truth values and text into each other, dates and times into each
/// other and from and to text, bytes from and to text.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert as To;
    let numbers = [
        To::SqlConvertBigint,
        To::SqlConvertBit,
        To::SqlConvertDecimal,
        To::SqlConvertFloat,
        To::SqlConvertInteger,
        To::SqlConvertNumeric,
        To::SqlConvertReal,
        To::SqlConvertSmallint,
        To::SqlConvertTinyint,
    ];
    let times = [To::SqlConvertDate, To::SqlConvertTimestamp];
    let texts = [To::SqlConvertChar, To::SqlConvertVarchar, To::SqlConvertLongvarchar];
    let bytes = [To::SqlConvertBinary, To::SqlConvertVarbinary, To::SqlConvertLongvarbinary];
    let codes = |groups: &[&[To]]| -> Vec<i32> {
        groups.iter().flat_map(|group| group.iter().map(|kind| *kind as i32)).collect()
    };
    let mut conversions = BTreeMap::new();
    for kind in numbers {
        conversions.insert(kind as i32, codes(&[&numbers, &texts]));
    }
    for kind in times {
        conversions.insert(kind as i32, codes(&[&times, &texts]));
    }
    for kind in texts {
        conversions.insert(kind as i32, codes(&[&numbers, &times, &texts, &bytes]));
    }
    for kind in bytes {
        conversions.insert(kind as i32, codes(&[&bytes, &texts]));
    }
    conversions
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, UnionArray};
    use arrow::datatypes::UInt32Type;

    use super::*;

    fn infos() -> SqlInfos {
        SqlInfos::new(Duration::from_secs(600), 1 << 20, &documented()).unwrap()
    }

    fn documented() -> Vec<FunctionDoc> {
        let function = |name: &str, kind, section: &str| FunctionDoc {
            name: name.into(),
            aliases: vec![format!("{name}_too")],
            kind,
            section: section.into(),
            description: String::new(),
            syntax: String::new(),
            example: String::new(),
            arguments: Vec::new(),
            own: false,
        };
        vec![
            function("sqrt", "scalar", "Math Functions"),
            function("lower", "scalar", "String Functions"),
            function("now", "scalar", "Time and Date Functions"),
            function("array_length", "scalar", "Array Functions"),
            function("sum", "aggregate", "General Functions"),
        ]
    }

    #[test]
    fn each_scalar_function_is_listed_once_under_all_its_names() {
        let documented = documented();
        let functions = Functions::of(&documented);
        assert_eq!(functions.numeric, BTreeSet::from(["sqrt", "sqrt_too"]));
        assert_eq!(functions.text, BTreeSet::from(["lower", "lower_too"]));
        assert_eq!(functions.datetime, BTreeSet::from(["now", "now_too"]));
        assert!(functions.system.contains("array_length"));
        assert!(functions.system.contains("current_user") && !functions.system.contains("sum"));
    }

    #[test]
    fn every_code_of_the_protocol_is_answered() {
        let batch = infos().batch(&[]).unwrap();
        let codes: BTreeSet<u32> =
            batch.column(0).as_primitive::<UInt32Type>().values().iter().copied().collect();
        let all: BTreeSet<u32> = (0..=1000u32)
            .filter(|code| SqlInfo::try_from(i32::try_from(*code).unwrap()).is_ok())
            .collect();
        assert_eq!(codes, all);
        assert!(all.len() >= 91);
    }

    /// The union's member for a code: 0 text, 1 bool, 2 bigint, 3 int32, 4 list, 5 map.
    fn member(info: SqlInfo) -> i8 {
        let batch = infos().batch(&[u32::try_from(info as i32).unwrap()]).unwrap();
        assert_eq!(batch.num_rows(), 1);
        batch.column(1).as_any().downcast_ref::<UnionArray>().unwrap().type_id(0)
    }

    #[test]
    fn values_are_in_the_member_that_the_jdbc_driver_casts_to() {
        for (info, expected) in [
            (SqlInfo::SqlIdentifierQuoteChar, 0),
            (SqlInfo::FlightSqlServerReadOnly, 1),
            (SqlInfo::SqlDefaultTransactionIsolation, 2),
            (SqlInfo::SqlMaxStatementLength, 2),
            (SqlInfo::SqlOuterJoinsSupportLevel, 3),
            (SqlInfo::SqlSupportedGroupBy, 3),
            (SqlInfo::FlightSqlServerTransaction, 3),
            (SqlInfo::SqlKeywords, 4),
            (SqlInfo::SqlSupportsConvert, 5),
        ] {
            assert_eq!(member(info), expected, "{}", info.as_str_name());
        }
    }

    #[test]
    fn unknown_and_repeated_codes_are_harmless() {
        let infos = infos();
        assert_eq!(infos.batch(&[999_999]).unwrap().num_rows(), 0);
        assert_eq!(infos.batch(&[0, 0, 1, 77_777]).unwrap().num_rows(), 2);
        let batch = infos.batch(&[]).unwrap();
        assert_eq!(batch.schema().as_ref(), SqlInfoDataBuilder::schema());
    }
}
