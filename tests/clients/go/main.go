// The Go Flight SQL client (arrow-go) against a server, which is also what the Go ADBC driver is
// made of: connect, ask, bind, browse, every type, cancel, close, and the database/sql driver.
//
//	go run . ADDRESS USER PASSWORD FOLDER-OF-TYPES.SQL
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func main() {
	address, user, password, folder := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	client, ctx, err := connect(address, user, password)
	must(err)
	queries(ctx, client)
	prepared(ctx, client)
	browse(ctx, client)
	session(ctx, client)
	types(ctx, client, folder)
	cancelling(ctx, client)
	refusals(ctx, client, address, user)
	databaseSQL(address, user, password)
	closed(ctx, client)
	fmt.Println("ok all")
}

// connect logs in once; the token goes with every call of the context.
func connect(address, user, password string) (*flightsql.Client, context.Context, error) {
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	client, err := flightsql.NewClient(address, nil, nil, plain)
	if err != nil {
		return nil, nil, err
	}
	ctx, err := client.Client.AuthenticateBasicToken(context.Background(), user, password)
	return client, ctx, err
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func check(name string, holds bool) {
	if !holds {
		panic(name)
	}
	fmt.Println("ok", name)
}

func equal(name string, found, expected any) {
	if fmt.Sprint(found) != fmt.Sprint(expected) {
		panic(fmt.Sprintf("%s: %v is not %v", name, found, expected))
	}
	fmt.Println("ok", name)
}

func refused(name string, err error, code codes.Code, words string) {
	said, _ := status.FromError(err)
	if said.Code() != code || !strings.Contains(said.Message(), words) {
		panic(fmt.Sprintf("%s: %v", name, err))
	}
	fmt.Println("ok", name)
}

// rows reads all endpoints of a result and shows each row as its values, and the schema.
func rows(ctx context.Context, client *flightsql.Client, info *flight.FlightInfo) ([]string, *arrow.Schema, error) {
	var found []string
	var schema *arrow.Schema
	for _, endpoint := range info.Endpoint {
		reader, err := client.DoGet(ctx, endpoint.Ticket)
		if err != nil {
			return nil, nil, err
		}
		schema = reader.Schema()
		for reader.Next() {
			batch := reader.RecordBatch()
			for row := range int(batch.NumRows()) {
				found = append(found, show(batch, row))
			}
		}
		err = reader.Err()
		reader.Release()
		if err != nil {
			return nil, nil, err
		}
	}
	return found, schema, nil
}

func show(batch arrow.RecordBatch, row int) string {
	values := make([]string, batch.NumCols())
	for index, column := range batch.Columns() {
		values[index] = column.ValueStr(row)
	}
	return strings.Join(values, "|")
}

func ask(ctx context.Context, client *flightsql.Client, text string) []string {
	info, err := client.Execute(ctx, text)
	must(err)
	found, _, err := rows(ctx, client, info)
	must(err)
	return found
}

func queries(ctx context.Context, client *flightsql.Client) {
	equal("a query gives rows", ask(ctx, client, "SELECT 1 AS n, 'x' AS word"), []string{"1|x"})
	result, err := client.GetExecuteSchema(ctx, "SELECT 1 AS n")
	must(err)
	schema, err := flight.DeserializeSchema(result.GetSchema(), memory.DefaultAllocator)
	must(err)
	equal("a schema comes without a run", schema.Field(0).Name, "n")
	_, err = client.ExecuteUpdate(ctx, "CREATE TABLE go_people AS SELECT 1 AS id, 'Ada' AS name")
	must(err)
	changed, err := client.ExecuteUpdate(ctx, "INSERT INTO go_people VALUES (2, 'Bob'), (3, 'Cyd')")
	must(err)
	equal("rows changed are counted", changed, 2)
	count := len(ask(ctx, client, "SELECT * FROM generate_series(1, 300000)"))
	equal("a large result comes whole", count, 300000)
}

func record(fields []arrow.Field, fill func(*array.RecordBuilder)) arrow.RecordBatch {
	builder := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer builder.Release()
	fill(builder)
	return builder.NewRecordBatch()
}

func prepared(ctx context.Context, client *flightsql.Client) {
	statement, err := client.Prepare(ctx, "SELECT name FROM go_people WHERE id = ?")
	must(err)
	equal("the placeholder's type is known", statement.ParameterSchema().Field(0).Type, "int64")
	for id, name := range map[int64]string{1: "Ada", 2: "Bob"} {
		fields := []arrow.Field{{Name: "1", Type: arrow.PrimitiveTypes.Int64}}
		statement.SetParameters(record(fields, func(builder *array.RecordBuilder) {
			builder.Field(0).(*array.Int64Builder).Append(id)
		}))
		info, err := statement.Execute(ctx)
		must(err)
		found, _, err := rows(ctx, client, info)
		must(err)
		equal("a bound value", found, []string{name})
	}
	must(statement.Close(ctx))
	statement, err = client.Prepare(ctx, "INSERT INTO go_people VALUES ($1, $2)")
	must(err)
	isUpdate, known := statement.IsUpdate()
	check("an update is told", known && isUpdate)
	fields := []arrow.Field{
		{Name: "1", Type: arrow.PrimitiveTypes.Int64},
		{Name: "2", Type: arrow.BinaryTypes.String, Nullable: true},
	}
	statement.SetParameters(record(fields, func(builder *array.RecordBuilder) {
		builder.Field(0).(*array.Int64Builder).AppendValues([]int64{4, 5, 6}, nil)
		names := builder.Field(1).(*array.StringBuilder)
		names.AppendValues([]string{"Dov", "Eva", ""}, []bool{true, true, false})
	}))
	changed, err := statement.ExecuteUpdate(ctx)
	must(err)
	equal("several rows of values", changed, 3)
	must(statement.Close(ctx))
	_, err = statement.Execute(ctx)
	check("a closed statement is refused", err != nil)
	found := ask(ctx, client, "SELECT count(*), count(name) FROM go_people")
	equal("all arrived", found, []string{"6|5"})
}

func browse(ctx context.Context, client *flightsql.Client) {
	listed := func(info *flight.FlightInfo, err error) []string {
		must(err)
		found, schema, err := rows(ctx, client, info)
		must(err)
		announced, err := flight.DeserializeSchema(info.GetSchema(), memory.DefaultAllocator)
		must(err)
		check("the announced schema is the one that comes", announced.Equal(schema))
		return found
	}
	text := func(value string) *string { return &value }
	equal("catalogs", listed(client.GetCatalogs(ctx)), []string{"attune"})
	schemas := &flightsql.GetDBSchemasOpts{DbSchemaFilterPattern: text("ma%")}
	equal("schemas", listed(client.GetDBSchemas(ctx, schemas)), []string{"attune|main"})
	tables := &flightsql.GetTablesOpts{
		DbSchemaFilterPattern: text("main"), TableNameFilterPattern: text("go\\_%"),
		TableTypes: []string{"TABLE"}, IncludeSchema: true,
	}
	info, err := client.GetTables(ctx, tables)
	must(err)
	reader, err := client.DoGet(ctx, info.Endpoint[0].Ticket)
	must(err)
	check("a table is found", reader.Next() && reader.RecordBatch().NumRows() == 1)
	bytes := reader.RecordBatch().Column(4).(*array.Binary).Value(0)
	columns, err := flight.DeserializeSchema(bytes, memory.DefaultAllocator)
	must(err)
	equal("its columns", []any{columns.Field(0).Name, columns.Field(1).Type}, "[id utf8]")
	kind := columns.Field(0).Metadata
	name, _ := (&flightsql.ColumnMetadata{Data: &kind}).TypeName()
	equal("the SQL type of a column", name, "BIGINT")
	reader.Release()
	equal("table types", len(listed(client.GetTableTypes(ctx))), 3)
	table := flightsql.TableRef{DBSchema: text("main"), Table: "go_people"}
	equal("primary keys", listed(client.GetPrimaryKeys(ctx, table)), []string{})
	equal("exported keys", listed(client.GetExportedKeys(ctx, table)), []string{})
	equal("imported keys", listed(client.GetImportedKeys(ctx, table)), []string{})
	equal("cross reference", listed(client.GetCrossReference(ctx, table, table)), []string{})
	check("types", len(listed(client.GetXdbcTypeInfo(ctx, nil))) > 10)
	wanted := []flightsql.SqlInfo{flightsql.SqlInfoFlightSqlServerName}
	info, err = client.GetSqlInfo(ctx, wanted)
	must(err)
	reader, err = client.DoGet(ctx, info.Endpoint[0].Ticket)
	must(err)
	check("a fact of the server", reader.Next() && reader.RecordBatch().NumRows() == 1)
	check("is its name", strings.Contains(reader.RecordBatch().Column(1).ValueStr(0), "Attune"))
	reader.Release()
}

func session(ctx context.Context, client *flightsql.Client) {
	option, err := flight.NewSessionOptionValue("system")
	must(err)
	set := func(name string, value *flight.SessionOptionValue) *flight.SetSessionOptionsResult {
		result, err := client.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{
			SessionOptions: map[string]*flight.SessionOptionValue{name: value},
		})
		must(err)
		return result
	}
	equal("a schema is chosen", len(set("schema", &option).Errors), 0)
	equal("and used", ask(ctx, client, "SELECT current_schema()"), []string{"system"})
	equal("an unknown option is told", len(set("no_such_option", &option).Errors), 1)
	option, err = flight.NewSessionOptionValue("main")
	must(err)
	set("schema", &option)
	options, err := client.GetSessionOptions(ctx, &flight.GetSessionOptionsRequest{})
	must(err)
	equal("options are given", options.SessionOptions["schema"].GetStringValue(), "main")
}

const ten = "(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))"

func endless() string {
	tables := make([]string, 9)
	for index := range tables {
		tables[index] = fmt.Sprintf("%s AS t%d(n)", ten, index)
	}
	return "SELECT t0.n FROM " + strings.Join(tables, " CROSS JOIN ")
}

func cancelling(ctx context.Context, client *flightsql.Client) {
	info, err := client.Execute(ctx, endless())
	must(err)
	reader, err := client.DoGet(ctx, info.Endpoint[0].Ticket)
	must(err)
	check("a long result begins", reader.Next())
	result, err := client.CancelFlightInfo(ctx, &flight.CancelFlightInfoRequest{Info: info})
	must(err)
	equal("it is cancelled", result.Status, flight.CancelStatusCancelled)
	for reader.Next() {
	}
	refused("and ends with an error", reader.Err(), codes.Canceled, "ATT-1807")
	reader.Release()

	info, err = client.Execute(ctx, endless())
	must(err)
	inner, stop := context.WithCancel(ctx)
	reader, err = client.DoGet(inner, info.Endpoint[0].Ticket)
	must(err)
	check("another begins", reader.Next())
	stop()
	for reader.Next() {
	}
	check("a context ends it", errors.Is(reader.Err(), context.Canceled) || status.Code(reader.Err()) == codes.Canceled)
	reader.Release()
	equal("the connection goes on", ask(ctx, client, "SELECT 1"), []string{"1"})
}

func refusals(ctx context.Context, client *flightsql.Client, address, user string) {
	_, _, err := connect(address, user, "wrong")
	refused("a wrong password", err, codes.Unauthenticated, "ATT-1501")
	_, err = client.Execute(context.Background(), "SELECT 1")
	refused("no login", err, codes.Unauthenticated, "ATT-1501")
	_, err = client.Execute(ctx, "SELECT nothing FROM nowhere")
	refused("an unknown table", err, codes.NotFound, "ATT-4001")
	_, err = client.Execute(ctx, "SELEC 1")
	refused("no SQL", err, codes.InvalidArgument, "ATT-1001")
	_, err = client.BeginTransaction(ctx)
	refused("a transaction", err, codes.Unimplemented, "ATT-1803")
}

func closed(ctx context.Context, client *flightsql.Client) {
	_, err := client.CloseSession(ctx, &flight.CloseSessionRequest{})
	must(err)
	_, err = client.Execute(ctx, "SELECT 1")
	refused("a closed session", err, codes.Unauthenticated, "ATT-1502")
	must(client.Close())
}
