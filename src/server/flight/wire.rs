//! The types that go over the wire.
//!
//! Inside, DataFusion prefers view types and dictionaries; many clients do not know them (JDBC up
//! to 18.3, ODBC, pandas-based tools). So by default strings go as Utf8, bytes as Binary, lists as
//! List, dictionaries and run-end encoded columns as their values, at every depth. A union stays
//! one, and what it holds is made plain in the same way. A client that asks for views gets its
//! strings and bytes as views; the rest stays plain. Types that common clients refuse go as the
//! next one that holds all their values: half floats as Float32 and small decimals as Decimal128
//! (JDBC; polars misreads them), all intervals as months, days and nanoseconds (pyarrow).
//!
//! Java has no unsigned integers, and the JDBC driver shows 255 as -1. A Java client gets them as
//! signed ones that hold them, and each column says its precision and scale ([`columns`]).
//!
//! One transform, [`wire_schema`], makes the schema that GetFlightInfo, GetSchema, a prepared
//! statement, GetTables and the DoGet stream announce, and [`wire_batch`] makes each batch match
//! it, so the five agree. It also settles what the encoder of arrow-flight would change by itself:
//! LargeList becomes List there, and a union loses its nullability and metadata.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array, UnionArray, make_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options, take_record_batch};
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalUnit, Schema, SchemaRef, TimeUnit, UnionFields,
};
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{IpcMessage, SchemaAsIpc};
use bytes::Bytes;

use super::columns;

/// One message carries about so much. Clients accept 4 MiB (gRPC's default) or 16 MiB (ADBC).
const MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// What a client's types depend on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WireTypes {
    /// Strings and bytes stay views.
    pub views: bool,
    /// The client is Java's: nothing unsigned, and columns are described.
    pub java: bool,
}

/// The schema that a client sees for `schema`. The schema's own metadata stays behind: it
/// describes the file a column came from.
pub fn wire_schema(schema: &Schema, types: WireTypes) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let field = wire_field(field, types, false);
        if types.java { Arc::new(columns::described_result(&field)) } else { field }
    });
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

fn wire_field(field: &FieldRef, types: WireTypes, is_nested: bool) -> FieldRef {
    let data_type = wire_type(field.data_type(), types);
    if let DataType::Union(..) = data_type {
        // A union has no NULLs of its own: its members have. Inside of another type those count.
        return Arc::new(Field::new(field.name(), data_type, is_nested));
    }
    if &data_type == field.data_type() {
        return Arc::clone(field);
    }
    let plain = Field::new(field.name(), data_type, field.is_nullable());
    Arc::new(plain.with_metadata(field.metadata().clone()))
}

fn nested_field(field: &FieldRef, types: WireTypes) -> FieldRef {
    wire_field(field, types, true)
}

fn wire_type(data_type: &DataType, types: WireTypes) -> DataType {
    match data_type {
        DataType::Utf8View if !types.views => DataType::Utf8,
        DataType::BinaryView if !types.views => DataType::Binary,
        DataType::UInt8 if types.java => DataType::Int16,
        DataType::UInt16 if types.java => DataType::Int32,
        DataType::UInt32 if types.java => DataType::Int64,
        DataType::UInt64 if types.java => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, value) => wire_type(value, types),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type(), types),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(nested_field(item, types)),
        DataType::FixedSizeList(item, length) => {
            DataType::FixedSizeList(nested_field(item, types), *length)
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| nested_field(field, types)).collect())
        }
        DataType::Map(entries, sorted) => DataType::Map(nested_field(entries, types), *sorted),
        DataType::Union(fields, mode) => {
            let children: UnionFields =
                fields.iter().map(|(id, field)| (id, nested_field(field, types))).collect();
            DataType::Union(children, *mode)
        }
        other => other.clone(),
    }
}

/// The placeholders' schema in types that the client can bind; values are cast to the plan's.
///
/// The JDBC driver writes milliseconds into a timestamp or time of any unit and days into a date
/// of milliseconds, so it is told the units that it writes. It binds nothing to a placeholder of
/// unknown type, so it is told text, which it can bind.
pub fn parameter_schema(parameters: &Schema, types: WireTypes) -> SchemaRef {
    let wire = wire_schema(parameters, WireTypes { views: false, java: types.java });
    if !types.java {
        return wire;
    }
    let fields = wire.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8,
            DataType::Timestamp(_, zone) => {
                DataType::Timestamp(TimeUnit::Millisecond, zone.clone())
            }
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time32(TimeUnit::Millisecond),
            DataType::Date64 => DataType::Date32,
            other => other.clone(),
        };
        Field::new(field.name(), data_type, field.is_nullable())
    });
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

/// The batch with the types of `wire`, which came from [`wire_schema`].
///
/// # Errors
/// A list of more than 2³¹ elements or a string column of more than 2 GiB in one batch.
pub fn wire_batch(batch: &RecordBatch, wire: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if batch.num_columns() != wire.fields().len() {
        return Err(ArrowError::SchemaError(format!(
            "a batch has {} columns where the plan announced {}",
            batch.num_columns(),
            wire.fields().len()
        )));
    }
    let columns = batch
        .columns()
        .iter()
        .zip(wire.fields())
        .map(|(column, field)| wire_column(column, field))
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(wire), columns, &options)
}

fn wire_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    if let DataType::Union(fields, _) = field.data_type()
        && let Some(union) = column.as_any().downcast_ref::<UnionArray>()
    {
        return wire_union(union, fields);
    }
    if holds_union(field.data_type()) {
        return wire_nested(column, field);
    }
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, field.data_type(), &exact)
}

/// The members of a union one by one; a cast knows no unions.
fn wire_union(union: &UnionArray, fields: &UnionFields) -> Result<ArrayRef, ArrowError> {
    let members = fields.iter().map(|(id, field)| wire_column(union.child(id), field));
    let members = members.collect::<Result<Vec<_>, _>>()?;
    let (ids, offsets) = (union.type_ids().clone(), union.offsets().cloned());
    Ok(Arc::new(UnionArray::try_new(fields.clone(), ids, offsets, members)?))
}

/// Whether a type of the wire has a union somewhere.
fn holds_union(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => true,
        DataType::List(inner) | DataType::FixedSizeList(inner, _) | DataType::Map(inner, _) => {
            holds_union(inner.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| holds_union(field.data_type())),
        _ => false,
    }
}

/// What holds a union, part by part.
fn wire_nested(column: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    let plain = match column.data_type() {
        DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            cast(column, &DataType::List(Arc::clone(item)))?
        }
        DataType::Dictionary(_, value) => return wire_column(&cast(column, value)?, field),
        DataType::RunEndEncoded(_, values) => {
            return wire_column(&cast(column, values.data_type())?, field);
        }
        _ => Arc::clone(column),
    };
    let parts: Vec<&FieldRef> = match field.data_type() {
        DataType::List(inner) | DataType::FixedSizeList(inner, _) | DataType::Map(inner, _) => {
            vec![inner]
        }
        DataType::Struct(fields) => fields.iter().collect(),
        _ => vec![],
    };
    let data = plain.to_data();
    let children = data.child_data().iter().zip(parts).map(|(child, part)| {
        wire_column(&make_array(child.clone()), part).map(|column| column.to_data())
    });
    let children = children.collect::<Result<Vec<_>, _>>()?;
    let built = data.into_builder().data_type(field.data_type().clone()).child_data(children);
    Ok(make_array(built.build()?))
}

/// Cuts a batch into pieces of about [`MESSAGE_BYTES`], rows in order. The size counts only what
/// the batch's rows refer to: the encoder's own split counts whole buffers, which makes crumbs of a
/// batch that is a slice of a large one.
pub fn split(batch: RecordBatch) -> Vec<RecordBatch> {
    let bytes: usize = batch
        .columns()
        .iter()
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
        .sum();
    let pieces = bytes.div_ceil(MESSAGE_BYTES).max(1);
    let rows = batch.num_rows();
    let rows_per_piece = rows.div_ceil(pieces).max(1);
    if rows <= rows_per_piece {
        return vec![compact(batch)];
    }
    (0..rows)
        .step_by(rows_per_piece)
        .map(|start| compact(batch.slice(start, rows_per_piece.min(rows - start))))
        .collect()
}

/// The rows in buffers of their own where a union lies inside of another type: arrow's writer sends
/// too much of the members of one that is a slice, which no reader takes.
fn compact(batch: RecordBatch) -> RecordBatch {
    let schema = batch.schema();
    let is_inside = |field: &FieldRef| {
        !matches!(field.data_type(), DataType::Union(..)) && holds_union(field.data_type())
    };
    if !schema.fields().iter().any(is_inside) {
        return batch;
    }
    let rows = UInt64Array::from_iter_values(0..batch.num_rows() as u64);
    take_record_batch(&batch, &rows).unwrap_or(batch)
}

/// A schema as an encapsulated IPC message, as FlightInfo, GetSchema and GetTables carry it.
pub fn ipc_schema(schema: &Schema) -> Result<Bytes, ArrowError> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options).try_into()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Decimal32Array, DictionaryArray, FixedSizeListArray, Float32Array, Float64Array,
        Int32Array, Int64Array, IntervalYearMonthArray, LargeListArray, ListArray, MapArray,
        StringArray, StringViewArray, StructArray, UInt8Array,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Int8Type, Int64Type};
    use arrow::ipc::reader::StreamReader;
    use arrow::ipc::writer::StreamWriter;
    use arrow::util::display::array_value_to_string;
    use arrow_flight::decode::FlightRecordBatchStream;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use futures::TryStreamExt;

    use super::*;

    const VIEWS: WireTypes = WireTypes { views: true, java: false };
    const JAVA: WireTypes = WireTypes { views: false, java: true };

    fn views_inside() -> RecordBatch {
        let words =
            StringViewArray::from(vec![Some("a string longer than twelve"), None, Some("")]);
        let codes: DictionaryArray<Int8Type> =
            vec![Some("x"), Some("y"), None].into_iter().collect();
        let lists = LargeListArray::from_iter_primitive::<Int64Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
        ]);
        let inner = Arc::new(Field::new("word", DataType::Utf8View, true));
        let nested = StructArray::from(vec![(inner, Arc::new(words.clone()) as ArrayRef)]);
        RecordBatch::try_from_iter_with_nullable(vec![
            ("word", Arc::new(words) as ArrayRef, true),
            ("code", Arc::new(codes) as ArrayRef, true),
            ("list", Arc::new(lists) as ArrayRef, true),
            ("nested", Arc::new(nested) as ArrayRef, true),
            ("number", Arc::new(Int32Array::from(vec![1, 2, 3])) as ArrayRef, false),
        ])
        .unwrap()
    }

    #[test]
    fn views_and_dictionaries_become_plain_at_every_depth() {
        let wire = wire_schema(views_inside().schema_ref(), WireTypes::default());
        let types: Vec<String> =
            wire.fields().iter().map(|field| field.data_type().to_string()).collect();
        assert!(types.iter().all(|name| !name.contains("View") && !name.contains("Dictionary")));
        assert_eq!(wire.field(0).data_type(), &DataType::Utf8);
        assert_eq!(wire.field(1).data_type(), &DataType::Utf8);
        assert!(matches!(wire.field(2).data_type(), DataType::List(_)));
        assert!(matches!(wire.field(3).data_type(),
            DataType::Struct(fields) if fields[0].data_type() == &DataType::Utf8));
        assert!(!wire.field(4).is_nullable());
    }

    #[test]
    fn a_client_that_wants_views_keeps_them() {
        let wire = wire_schema(views_inside().schema_ref(), VIEWS);
        assert_eq!(wire.field(0).data_type(), &DataType::Utf8View);
        assert_eq!(wire.field(1).data_type(), &DataType::Utf8);
    }

    #[test]
    fn values_survive() {
        let batch = views_inside();
        let wire = wire_schema(batch.schema_ref(), WireTypes::default());
        let plain = wire_batch(&batch, &wire).unwrap();
        let words = plain.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        assert_eq!(
            words.iter().collect::<Vec<_>>(),
            [Some("a string longer than twelve"), None, Some("")]
        );
        assert!(plain.column(1).is_null(2) && plain.column(2).is_null(1));
    }

    /// A batch of types that clients do not know, each nested as well.
    fn strange() -> RecordBatch {
        let words: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), Some("a"), None]));
        let runs = DataType::RunEndEncoded(
            Arc::new(Field::new("run_ends", DataType::Int32, false)),
            Arc::new(Field::new("values", DataType::Utf8, true)),
        );
        let half = Float64Array::from(vec![Some(0.5), None, Some(2.0)]);
        let cast =
            |column: &dyn Array, kind: &DataType| arrow::compute::cast(column, kind).unwrap();
        let runs = cast(&words, &runs);
        let small = cast(&half, &DataType::Decimal32(5, 1));
        let medium = cast(&half, &DataType::Decimal64(12, 2));
        let half = cast(&half, &DataType::Float16);
        let view = DataType::ListView(Arc::new(Field::new("item", DataType::Utf8View, true)));
        let lists = cast(&words, &view);
        let members = UnionFields::try_new(
            [0, 1],
            [
                Field::new("word", DataType::Utf8View, true),
                Field::new("amount", DataType::Decimal32(5, 1), true),
            ],
        );
        let ids = vec![0i8, 1, 0].into();
        let union = UnionArray::try_new(
            members.unwrap(),
            ids,
            None,
            vec![Arc::clone(&words), Arc::clone(&small)],
        );
        let nested = StructArray::from(vec![
            (Arc::new(Field::new("small", small.data_type().clone(), true)), Arc::clone(&small)),
            (Arc::new(Field::new("lists", lists.data_type().clone(), true)), Arc::clone(&lists)),
        ]);
        RecordBatch::try_from_iter_with_nullable(vec![
            ("runs", runs, true),
            ("small", small, true),
            ("medium", medium, true),
            ("half", half, true),
            ("lists", lists, true),
            ("union", Arc::new(union.unwrap()) as ArrayRef, false),
            ("nested", Arc::new(nested) as ArrayRef, true),
        ])
        .unwrap()
    }

    fn rare_types() -> RecordBatch {
        let halves =
            arrow::compute::cast(&Int32Array::from(vec![Some(3), None]), &DataType::Float16)
                .unwrap();
        let short = Decimal32Array::from(vec![Some(-12345), None]);
        let short = short.with_precision_and_scale(7, 2).unwrap();
        RecordBatch::try_from_iter_with_nullable(vec![
            ("half", halves, true),
            ("short", Arc::new(short) as ArrayRef, true),
            ("months", Arc::new(IntervalYearMonthArray::from(vec![Some(14), None])), true),
            ("byte", Arc::new(UInt8Array::from(vec![Some(255), None])), true),
            ("long", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])), true),
        ])
        .unwrap()
    }

    #[test]
    fn what_clients_do_not_know_becomes_what_they_know() {
        let batch = strange();
        let wire = wire_schema(batch.schema_ref(), WireTypes::default());
        let types: Vec<String> =
            wire.fields().iter().map(|field| field.data_type().to_string()).collect();
        assert_eq!(types[..4], ["Utf8", "Decimal128(5, 1)", "Decimal128(12, 2)", "Float32"]);
        for word in ["View", "RunEnd", "Decimal32", "Float16"] {
            assert!(types.iter().all(|name| !name.contains(word)), "{types:?}");
        }
        let plain = wire_batch(&batch, &wire).unwrap();
        let words = plain.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        assert_eq!(words.iter().collect::<Vec<_>>(), [Some("a"), Some("a"), None]);
        let halves = plain.column(3).as_any().downcast_ref::<Float32Array>().unwrap();
        assert_eq!(halves.iter().collect::<Vec<_>>(), [Some(0.5), None, Some(2.0)]);
    }

    #[test]
    fn types_that_clients_refuse_go_as_ones_that_hold_them() {
        let batch = rare_types();
        let plain = wire_batch(&batch, &wire_schema(batch.schema_ref(), VIEWS)).unwrap();
        let shown = |batch: &RecordBatch, column: usize| {
            let data_type = batch.column(column).data_type().to_string();
            let value = array_value_to_string(batch.column(column), 0).unwrap();
            assert!(batch.column(column).is_null(1));
            format!("{data_type} {value}")
        };
        assert_eq!(shown(&plain, 0), "Float32 3.0");
        assert_eq!(shown(&plain, 1), "Decimal128(7, 2) -123.45");
        assert_eq!(shown(&plain, 2), "Interval(MonthDayNano) 14 mons");
        assert_eq!(shown(&plain, 3), "UInt8 255");
        let java = wire_batch(&batch, &wire_schema(batch.schema_ref(), JAVA)).unwrap();
        assert_eq!(shown(&java, 3), "Int16 255");
        assert_eq!(shown(&java, 4), format!("Decimal128(20, 0) {}", u64::MAX));
        let metadata = java.schema_ref().field(1).metadata();
        assert_eq!(metadata["ARROW:FLIGHT:SQL:SCALE"], "2");
    }

    #[test]
    fn a_java_client_binds_what_its_driver_can_write() {
        let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let expected = [DataType::Null, nanoseconds, DataType::UInt32, DataType::Utf8View];
        let fields = expected.map(|data_type| Field::new("$1", data_type, true));
        let parameters = Schema::new(fields.to_vec());
        let java = parameter_schema(&parameters, JAVA);
        let types: Vec<_> = java.fields().iter().map(|field| field.data_type()).collect();
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
        assert_eq!(types, [&DataType::Utf8, &milliseconds, &DataType::Int64, &DataType::Utf8]);
        let others = parameter_schema(&parameters, VIEWS);
        assert_eq!(others.field(0).data_type(), &DataType::Null);
        assert_eq!(others.field(3).data_type(), &DataType::Utf8);
    }

    #[tokio::test]
    async fn the_encoder_changes_nothing_more() {
        let kinds = [WireTypes::default(), VIEWS, JAVA];
        let batches = [views_inside(), strange(), rare_types()];
        for (types, batch) in
            kinds.iter().flat_map(|types| batches.iter().map(move |b| (*types, b)))
        {
            let wire = wire_schema(batch.schema_ref(), types);
            let plain = wire_batch(batch, &wire).unwrap();
            let encoder = FlightDataEncoderBuilder::new()
                .with_schema(Arc::clone(&wire))
                .with_max_flight_data_size(usize::MAX)
                .build(futures::stream::iter([Ok(plain.clone())]));
            assert_eq!(encoder.known_schema().unwrap(), wire);
            let back: Vec<RecordBatch> =
                FlightRecordBatchStream::new_from_flight_data(encoder).try_collect().await.unwrap();
            assert_eq!(back, [plain]);
        }
    }

    /// Unions inside of structs, lists of all kinds and maps.
    fn unions_inside() -> RecordBatch {
        let strange = strange();
        let union = Arc::clone(strange.column(5));
        let item = Arc::new(Field::new("item", union.data_type().clone(), true));
        let offsets = OffsetBuffer::<i32>::from_lengths([2, 0, 1]);
        let list: ArrayRef = Arc::new(
            ListArray::try_new(Arc::clone(&item), offsets.clone(), Arc::clone(&union), None)
                .unwrap(),
        );
        let of = |data_type: DataType| arrow::compute::cast(&list, &data_type).unwrap();
        let fixed = FixedSizeListArray::try_new(Arc::clone(&item), 1, Arc::clone(&union), None);
        let names: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b", "c"]));
        let entries = StructArray::try_new(
            vec![Field::new("key", DataType::Utf8View, false), item.as_ref().clone()].into(),
            vec![names, Arc::clone(&union)],
            None,
        )
        .unwrap();
        let entry = Arc::new(Field::new("entries", entries.data_type().clone(), false));
        let map = MapArray::try_new(entry, offsets, entries, None, false).unwrap();
        let inside = Arc::new(Field::new("list", list.data_type().clone(), true));
        let nested =
            StructArray::from(vec![(inside, Arc::clone(&list)), (Arc::clone(&item), union)]);
        RecordBatch::try_from_iter_with_nullable(vec![
            ("list", Arc::clone(&list), true),
            ("large", of(DataType::LargeList(Arc::clone(&item))), true),
            ("view", of(DataType::ListView(item)), true),
            ("fixed", Arc::new(fixed.unwrap()) as ArrayRef, true),
            ("map", Arc::new(map) as ArrayRef, true),
            ("nested", Arc::new(nested) as ArrayRef, true),
        ])
        .unwrap()
    }

    #[test]
    fn a_union_inside_of_another_type_arrives() {
        let batch = unions_inside();
        for types in [WireTypes::default(), VIEWS, JAVA] {
            for batch in [batch.clone(), batch.slice(1, 2)] {
                let wire = wire_schema(batch.schema_ref(), types);
                let plain = wire_batch(&batch, &wire).unwrap();
                let shown = |batch: &RecordBatch| -> Vec<String> {
                    let cells = batch.columns().iter().flat_map(|column| {
                        (0..batch.num_rows()).map(|row| array_value_to_string(column, row).unwrap())
                    });
                    cells.collect()
                };
                assert_eq!(shown(&plain), shown(&batch));
                let mut writer = StreamWriter::try_new(vec![], &wire).unwrap();
                split(plain.clone()).iter().for_each(|piece| writer.write(piece).unwrap());
                let sent = writer.into_inner().unwrap();
                let mut reader = StreamReader::try_new(sent.as_slice(), None).unwrap();
                assert_eq!(reader.schema(), wire);
                assert_eq!(reader.next().unwrap().unwrap(), plain);
            }
        }
    }

    #[test]
    fn a_batch_that_differs_from_its_plan_is_an_error() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, false)]);
        let wire = wire_schema(&schema, WireTypes::default());
        assert!(wire_batch(&views_inside(), &wire).is_err());
    }

    #[test]
    fn large_batches_are_cut_and_slices_of_large_batches_are_not() {
        let numbers = Int64Array::from_iter_values(0..1_000_000);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap();
        let pieces = split(batch.clone());
        assert_eq!(pieces.len(), 4);
        assert_eq!(pieces.iter().map(RecordBatch::num_rows).sum::<usize>(), 1_000_000);
        assert_eq!(split(batch.slice(10, 8192)).len(), 1);
        assert_eq!(split(batch.slice(0, 0)).len(), 1);
    }

    #[test]
    fn a_batch_without_columns_keeps_its_rows() {
        let schema = Arc::new(Schema::empty());
        let options = RecordBatchOptions::new().with_row_count(Some(3));
        let batch =
            RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).unwrap();
        assert_eq!(wire_batch(&batch, &schema).unwrap().num_rows(), 3);
    }
}
