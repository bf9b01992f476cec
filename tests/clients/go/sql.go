package main

import (
	"database/sql"
	"strings"
	"time"

	_ "github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
)

// databaseSQL asks through database/sql. The driver sends the password with every call and knows
// no unsigned integers; both are its own limits.
func databaseSQL(address, user, password string) {
	db, err := sql.Open("flightsql", "flightsql://"+user+":"+password+"@"+address+"?timeout=30s")
	must(err)
	defer db.Close()
	var n int64
	var word string
	var at time.Time
	row := db.QueryRow("SELECT 7 AS n, 'x' AS word, TIMESTAMP '2024-02-29T12:34:56' AS at")
	must(row.Scan(&n, &word, &at))
	equal("database/sql: a row", []any{n, word, at.UTC().Format(time.RFC3339)}, "[7 x 2024-02-29T12:34:56Z]")
	must(db.QueryRow("SELECT name FROM go_people WHERE id = ?", int64(2)).Scan(&word))
	equal("database/sql: a bound value", word, "Bob")
	result, err := db.Exec("INSERT INTO go_people VALUES (?, ?)", int64(7), "Gus")
	must(err)
	changed, err := result.RowsAffected()
	must(err)
	equal("database/sql: an update", changed, 1)
	var position any
	err = db.QueryRow("SELECT arrow_cast(1, 'UInt64')").Scan(&position)
	check("database/sql: still no unsigned integers", err != nil && strings.Contains(err.Error(), "not supported"))
}
