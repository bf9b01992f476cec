//! What GetXdbcTypeInfo answers: the types of Attune's SQL as JDBC and ODBC describe types.

use arrow::array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};

/// The types of this server.
pub struct TypeInfos {
    data: XdbcTypeInfoData,
}

impl TypeInfos {
    /// All types, sorted by code and name.
    pub fn new() -> Result<Self, FlightError> {
        let mut builder = XdbcTypeInfoDataBuilder::new();
        for info in numbers().into_iter().chain(texts()).chain(times()) {
            builder.append(info);
        }
        Ok(Self { data: builder.build()? })
    }

    /// The types, or those with one code.
    pub fn batch(&self, data_type: Option<i32>) -> Result<RecordBatch, FlightError> {
        self.data.record_batch(data_type)
    }
}

/// What all types have in common. `size` is digits, characters or bytes, whichever the type counts.
fn plain(name: &str, code: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type: code,
        column_size: Some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.to_owned()),
        sql_data_type: code,
        ..XdbcTypeInfo::default()
    }
}

fn numbers() -> Vec<XdbcTypeInfo> {
    let integer = |name, code, digits, unsigned| XdbcTypeInfo {
        unsigned_attribute: Some(unsigned),
        auto_increment: Some(false),
        minimum_scale: Some(0),
        maximum_scale: Some(0),
        num_prec_radix: Some(10),
        ..plain(name, code, digits)
    };
    let float = |name, code, bits| XdbcTypeInfo {
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        num_prec_radix: Some(2),
        ..plain(name, code, bits)
    };
    vec![
        plain("BOOLEAN", XdbcDataType::XdbcBit, 1),
        integer("TINYINT", XdbcDataType::XdbcTinyint, 3, false),
        integer("TINYINT UNSIGNED", XdbcDataType::XdbcTinyint, 3, true),
        integer("SMALLINT", XdbcDataType::XdbcSmallint, 5, false),
        integer("SMALLINT UNSIGNED", XdbcDataType::XdbcSmallint, 5, true),
        integer("INTEGER", XdbcDataType::XdbcInteger, 10, false),
        integer("INTEGER UNSIGNED", XdbcDataType::XdbcInteger, 10, true),
        integer("BIGINT", XdbcDataType::XdbcBigint, 19, false),
        integer("BIGINT UNSIGNED", XdbcDataType::XdbcBigint, 20, true),
        float("REAL", XdbcDataType::XdbcReal, 24),
        float("DOUBLE", XdbcDataType::XdbcDouble, 53),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".into(), "scale".into()]),
            unsigned_attribute: Some(false),
            fixed_prec_scale: true,
            auto_increment: Some(false),
            minimum_scale: Some(0),
            maximum_scale: Some(76),
            num_prec_radix: Some(10),
            ..plain("DECIMAL", XdbcDataType::XdbcDecimal, 76)
        },
    ]
}

fn texts() -> Vec<XdbcTypeInfo> {
    let quoted = |name, code, prefix: &str| XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".into()),
        case_sensitive: true,
        ..plain(name, code, i32::MAX)
    };
    vec![
        quoted("VARCHAR", XdbcDataType::XdbcVarchar, "'"),
        XdbcTypeInfo {
            searchable: Searchable::Basic,
            ..quoted("BYTEA", XdbcDataType::XdbcVarbinary, "X'")
        },
    ]
}

fn times() -> Vec<XdbcTypeInfo> {
    let time = |name, code, size, prefix: &str, subcode| XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".into()),
        searchable: Searchable::Basic,
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: subcode,
        ..plain(name, code, size)
    };
    let fraction = |info| XdbcTypeInfo { minimum_scale: Some(0), maximum_scale: Some(9), ..info };
    let stamp = XdbcDatetimeSubcode::XdbcSubcodeTimestamp;
    let zoned = XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone;
    let clock = XdbcDatetimeSubcode::XdbcSubcodeTime;
    vec![
        // The subcode of a date is 1, which the protocol's enumeration calls YEAR.
        time(
            "DATE",
            XdbcDataType::XdbcDate,
            10,
            "DATE '",
            Some(XdbcDatetimeSubcode::XdbcSubcodeYear),
        ),
        fraction(time("TIME", XdbcDataType::XdbcTime, 18, "TIME '", Some(clock))),
        fraction(time("TIMESTAMP", XdbcDataType::XdbcTimestamp, 29, "TIMESTAMP '", Some(stamp))),
        fraction(time(
            "TIMESTAMP WITH TIME ZONE",
            XdbcDataType::XdbcTimestamp,
            35,
            "TIMESTAMP '",
            Some(zoned),
        )),
        XdbcTypeInfo {
            sql_data_type: XdbcDataType::XdbcInterval,
            ..time("INTERVAL", XdbcDataType::XdbcInterval, 64, "INTERVAL '", None)
        },
    ]
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn types_are_sorted_and_have_names() {
        let batch = TypeInfos::new().unwrap().batch(None).unwrap();
        assert_eq!(batch.num_rows(), 19);
        let codes = batch.column(1).as_primitive::<Int32Type>();
        assert!(codes.values().is_sorted());
        assert_eq!(batch.schema(), XdbcTypeInfoDataBuilder::new().schema());
    }

    #[test]
    fn one_code_gives_its_types() {
        let infos = TypeInfos::new().unwrap();
        let varchar = infos.batch(Some(XdbcDataType::XdbcVarchar as i32)).unwrap();
        assert_eq!(varchar.column(0).as_string::<i32>().value(0), "VARCHAR");
        assert_eq!(varchar.num_rows(), 1);
        assert_eq!(infos.batch(Some(-12345)).unwrap().num_rows(), 0);
    }
}
