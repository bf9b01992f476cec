package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
)

// expected has each column of types.sql with its Arrow type and its value.
var expected = [][3]string{
	{"int8", "int8", "-128"},
	{"int16", "int16", "-32768"},
	{"int32", "int32", "-2147483648"},
	{"int64", "int64", "-9223372036854775807"},
	{"uint8", "uint8", "255"},
	{"uint16", "uint16", "65535"},
	{"uint32", "uint32", "4294967295"},
	{"uint64", "uint64", "18446744073709551615"},
	{"float16", "float32", "0.5"},
	{"float32", "float32", "-0.25"},
	{"float64", "float64", "1.5e+300"},
	{"decimal32", "decimal(9, 2)", "-1234567.89"},
	{"decimal64", "decimal(18, 6)", "-1234567.890123"},
	{"decimal128", "decimal(38, 10)", "12345678901234567890.0123456789"},
	{"decimal256", "decimal256(76, 5)", "123456789012345678901234567890123456789012345.5"},
	{"truth", "bool", "true"},
	{"utf8", "utf8", "grün 😀"},
	{"large_utf8", "large_utf8", "grün 😀"},
	{"utf8_view", "utf8", "a text longer than twelve"},
	{"bytes", "binary", "AP8Q"},
	{"large_bytes", "large_binary", "AP8Q"},
	{"bytes_view", "binary", "AP8Q"},
	{"fixed_bytes", "fixed_size_binary[3]", "AP8Q"},
	{"date32", "date32", "2024-02-29"},
	{"date64", "date64", "2024-02-29"},
	{"time32_s", "time32[s]", "12:34:56"},
	{"time32_ms", "time32[ms]", "12:34:56.789"},
	{"time64_us", "time64[us]", "12:34:56.789012"},
	{"time64_ns", "time64[ns]", "12:34:56.789012345"},
	{"timestamp_s", "timestamp[s]", "2024-02-29T12:34:56"},
	{"timestamp_ms", "timestamp[ms]", "2024-02-29T12:34:56.789"},
	{"timestamp_us", "timestamp[us]", "2024-02-29T12:34:56.789012"},
	{"timestamp_ns", "timestamp[ns]", "2024-02-29T12:34:56.789012345"},
	{"timestamptz_s", "timestamp[s, tz=UTC]", "2024-02-29T12:34:56Z"},
	{"timestamptz_ms", "timestamp[ms, tz=Europe/Berlin]", "2024-02-29T13:34:56.789+01:00"},
	{"timestamptz_us", "timestamp[us, tz=+05:30]", "2024-02-29T18:04:56.789012+05:30"},
	{"timestamptz_ns", "timestamp[ns, tz=UTC]", "2024-02-29T12:34:56.789012345Z"},
	{"duration_s", "duration[s]", "90s"},
	{"duration_ms", "duration[ms]", "90001ms"},
	{"duration_us", "duration[us]", "90000001us"},
	{"duration_ns", "duration[ns]", "90000000001ns"},
	{"interval_ym", "month_day_nano_interval", `{"months":14,"days":0,"nanoseconds":0}`},
	{"interval_dt", "month_day_nano_interval", `{"months":0,"days":3,"nanoseconds":4000000000}`},
	{"interval_mdn", "month_day_nano_interval", `{"months":1,"days":2,"nanoseconds":3000000000}`},
	{"list_int", "list<item: int64, nullable>", "[1,null,3]"},
	{"large_list", "list<item: int64, nullable>", "[1,null,3]"},
	{"fixed_list", "fixed_size_list<item: int64, nullable>[3]", "[1,null,3]"},
	{"list_text", "list<item: utf8, nullable>", `["x",null]`},
	{"list_list", "list<item: list<item: int64, nullable>, nullable>", "[[1,2],[3]]"},
	{"record", "struct<a: int64 nullable, b: utf8 nullable>", `{"a":1,"b":"x"}`},
	{"list_record", "list<item: struct<item: utf8 nullable, score: float64 nullable>, nullable>", `[{"item":"i1","score":0.5}]`},
	{"nested", "struct<tags: list<item: utf8, nullable> nullable, at: date32 nullable>", `{"at":"2024-02-29","tags":["p","q"]}`},
	{"map_int", "map<utf8, int64, items_nullable>", `[{"key":"k1","value":1},{"key":"k2","value":null}]`},
	{"dictionary", "utf8", "d"},
	{"dictionary_int", "int64", "7"},
	{"nothing", "null", "(null)"},
}

func types(ctx context.Context, client *flightsql.Client, folder string) {
	text, err := os.ReadFile(filepath.Join(folder, "types.sql"))
	must(err)
	info, err := client.Execute(ctx, string(text))
	must(err)
	reader, err := client.DoGet(ctx, info.Endpoint[0].Ticket)
	must(err)
	defer reader.Release()
	schema := reader.Schema()
	equal("columns", schema.NumFields(), len(expected))
	row := 0
	for reader.Next() {
		batch := reader.RecordBatch()
		for inner := range int(batch.NumRows()) {
			for index, column := range expected {
				field := schema.Field(index)
				name, kind, value := column[0], column[1], column[2]
				if row > 0 {
					equal("NULL of "+name, batch.Column(index).ValueStr(inner), "(null)")
					continue
				}
				found := strings.TrimSpace(batch.Column(index).ValueStr(inner))
				equal(name, [3]string{field.Name, field.Type.String(), found}, [3]string{name, kind, value})
			}
			row++
		}
	}
	must(reader.Err())
	equal("two rows", row, 2)
}
