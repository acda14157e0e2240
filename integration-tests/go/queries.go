package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// A result: its schema, the number of rows, and the columns of the first batch as text.
type result struct {
	schema *arrow.Schema
	rows   int64
	text   []string
}

func checkCount(ctx context.Context, connection adbc.Connection, rows int64) error {
	found, err := execute(ctx, connection, "SELECT count(*) FROM bronze")
	if err == nil && !slices.Equal(found.text, []string{fmt.Sprint(rows)}) {
		err = fmt.Errorf("found %v rows, expected %d", found.text, rows)
	}
	return err
}

func checkQueries(ctx context.Context, connection adbc.Connection, rows int64) error {
	found, err := execute(ctx, connection, "SELECT count(*), min(event_time), count(DISTINCT symbol) FROM bronze")
	if err != nil {
		return err
	}
	expected := []string{fmt.Sprint(rows), "2025-01-01T00:00:00Z", "1"}
	if !slices.Equal(found.text, expected) {
		return fmt.Errorf("found %v, expected %v", found.text, expected)
	}
	micros := &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	if kind := found.schema.Field(1).Type; !arrow.TypeEqual(kind, micros) {
		return fmt.Errorf("times are %v", kind)
	}
	// The same metadata, streams and batches again, from many concurrent queries on one connection.
	errs := make(chan error)
	for range 8 {
		go func() {
			_, err := execute(ctx, connection, "SELECT symbol, max(close) FROM gold GROUP BY symbol")
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func checkLargeResults(ctx context.Context, connection adbc.Connection, rows int64) error {
	for query, expected := range map[string]int64{
		"SELECT * FROM bronze": rows,
		"SELECT bronze.* FROM bronze CROSS JOIN generate_series(1, 20)": 20 * rows,
		// One row of 6 MB, which cannot be split into several messages.
		"SELECT repeat(symbol, 900000) AS wide FROM bronze LIMIT 1": 1,
		"SELECT * FROM bronze WHERE close < 0":                      0,
	} {
		found, err := execute(ctx, connection, query)
		if err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
		if found.rows != expected {
			return fmt.Errorf("%s: %d rows, expected %d", query, found.rows, expected)
		}
		if expected == 1 && len(found.text[0]) != 900_000*len("ONE-USD") {
			return fmt.Errorf("%s: %d bytes", query, len(found.text[0]))
		}
	}
	return nil
}

// checkParameters binds rows of parameters to a prepared statement, and then others. Each row is one execution.
func checkParameters(ctx context.Context, connection adbc.Connection, rows int64) error {
	statement, err := connection.NewStatement()
	if err != nil {
		return err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery("SELECT ?, count(*) FROM bronze WHERE symbol = ? AND event_time >= ? AND close > ?"); err != nil {
		return err
	}
	if err := statement.Prepare(ctx); err != nil {
		return err
	}
	parameters, err := statement.GetParameterSchema()
	if err != nil || parameters.NumFields() != 4 {
		return fmt.Errorf("parameters are %v, %w", parameters, err)
	}
	micros := &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "label", Type: arrow.BinaryTypes.String},
		{Name: "symbol", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "from", Type: micros},
		{Name: "above", Type: arrow.PrimitiveTypes.Float64},
	}, nil)
	builder := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer builder.Release()
	start := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		label, symbol string
		from          time.Time
		above         float64
	}{
		{"all", "ONE-USD", start, 0},
		{"all but two", "ONE-USD", start.Add(2 * time.Minute), 0},
		{"none", "TWO-USD", start, 0},
		{"none so dear", "ONE-USD", start, 1e12},
	} {
		builder.Field(0).(*array.StringBuilder).Append(row.label)
		builder.Field(1).(*array.StringBuilder).Append(row.symbol)
		builder.Field(2).(*array.TimestampBuilder).AppendTime(row.from)
		builder.Field(3).(*array.Float64Builder).Append(row.above)
	}
	expected := []string{
		"all", fmt.Sprint(rows), "all but two", fmt.Sprint(rows - 2), "none", "0", "none so dear", "0",
	}
	if err := bindAndExpect(ctx, statement, builder.NewRecordBatch(), expected); err != nil {
		return err
	}
	builder.Field(0).(*array.StringBuilder).Append("null")
	builder.Field(1).(*array.StringBuilder).AppendNull()
	builder.Field(2).(*array.TimestampBuilder).AppendTime(start)
	builder.Field(3).(*array.Float64Builder).Append(0)
	return bindAndExpect(ctx, statement, builder.NewRecordBatch(), []string{"null", "0"})
}

func bindAndExpect(ctx context.Context, statement adbc.Statement, parameters arrow.RecordBatch, expected []string) error {
	if err := statement.Bind(ctx, parameters); err != nil {
		return err
	}
	reader, _, err := statement.ExecuteQuery(ctx)
	if err != nil {
		return err
	}
	defer reader.Release()
	var found []string
	for reader.Next() {
		found = append(found, rowsOf(reader.RecordBatch())...)
	}
	if err := reader.Err(); err != nil {
		return err
	}
	if !slices.Equal(found, expected) {
		return fmt.Errorf("found %v, expected %v", found, expected)
	}
	return nil
}

// checkPartitions reads a result by its partitions, as distributed engines do.
func checkPartitions(ctx context.Context, connection adbc.Connection, rows int64) error {
	statement, err := connection.NewStatement()
	if err != nil {
		return err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery("SELECT symbol, close FROM bronze"); err != nil {
		return err
	}
	schema, partitions, _, err := statement.ExecutePartitions(ctx)
	if err != nil {
		return err
	}
	var read int64
	for _, id := range partitions.PartitionIDs {
		reader, err := connection.ReadPartition(ctx, id)
		if err != nil {
			return err
		}
		if !reader.Schema().Equal(schema) {
			return fmt.Errorf("advertised %v, streamed %v", schema, reader.Schema())
		}
		for reader.Next() {
			read += reader.RecordBatch().NumRows()
		}
		if err := reader.Err(); err != nil {
			return err
		}
		reader.Release()
	}
	if partitions.NumPartitions == 0 || read != rows {
		return fmt.Errorf("%d partitions hold %d rows, expected %d", partitions.NumPartitions, read, rows)
	}
	return nil
}

func checkRefusals(ctx context.Context, connection adbc.Connection, _ int64) error {
	for query, word := range map[string]string{
		"SELEC 1":                    "SELEC",
		"SELECT nothing FROM bronze": "nothing",
		"SELECT * FROM nothing":      "nothing",
		"DELETE FROM bronze":         "DML",
		"DROP TABLE bronze":          "DDL",
		// This query fails only during execution.
		"SELECT CAST(symbol AS int) FROM bronze": "ONE-USD",
	} {
		_, err := execute(ctx, connection, query)
		if err := refused(query, err, adbc.StatusInvalidArgument, word); err != nil {
			return err
		}
	}
	statement, err := connection.NewStatement()
	if err != nil {
		return err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery("DELETE FROM bronze"); err != nil {
		return err
	}
	_, err = statement.ExecuteUpdate(ctx)
	return refused("an update", err, adbc.StatusNotImplemented, "read-only")
}

// checkCancellation cancels one query before its first row and another between its rows.
func checkCancellation(ctx context.Context, connection adbc.Connection, rows int64) error {
	endless := "SELECT sum(a.value * b.value) FROM generate_series(1, 10000000) a CROSS JOIN generate_series(1, 10000000) b"
	brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := execute(brief, connection, endless); err == nil || ctx.Err() != nil {
		return fmt.Errorf("a query without end ended with %v", err)
	}
	statement, err := connection.NewStatement()
	if err != nil {
		return err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery("SELECT bronze.* FROM bronze CROSS JOIN generate_series(1, 1000000000)"); err != nil {
		return err
	}
	amid, stop := context.WithCancel(ctx)
	defer stop()
	reader, _, err := statement.ExecuteQuery(amid)
	if err != nil {
		return err
	}
	defer reader.Release()
	if !reader.Next() {
		return fmt.Errorf("no row before the cancellation: %w", reader.Err())
	}
	stop()
	for reader.Next() {
	}
	if err := reader.Err(); err == nil || !strings.Contains(strings.ToLower(err.Error()), "cancel") {
		return fmt.Errorf("a cancelled query ended with %v", err)
	}
	// The connection stays usable.
	return checkCount(ctx, connection, rows)
}

func execute(ctx context.Context, connection adbc.Connection, query string) (result, error) {
	statement, err := connection.NewStatement()
	if err != nil {
		return result{}, err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery(query); err != nil {
		return result{}, err
	}
	reader, _, err := statement.ExecuteQuery(ctx)
	if err != nil {
		return result{}, err
	}
	defer reader.Release()
	found := result{schema: reader.Schema()}
	for reader.Next() {
		batch := reader.RecordBatch()
		if found.rows == 0 && batch.NumRows() == 1 {
			found.text = rowsOf(batch)
		}
		found.rows += batch.NumRows()
	}
	return found, reader.Err()
}

// schemaOf returns the schema of a query without executing it.
func schemaOf(ctx context.Context, connection adbc.Connection, query string) (*arrow.Schema, error) {
	statement, err := connection.NewStatement()
	if err != nil {
		return nil, err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery(query); err != nil {
		return nil, err
	}
	return statement.(adbc.StatementExecuteSchema).ExecuteSchema(ctx)
}

// rowsOf returns a batch's values as text, row by row.
func rowsOf(batch arrow.RecordBatch) []string {
	var found []string
	for row := range int(batch.NumRows()) {
		for _, column := range batch.Columns() {
			found = append(found, column.ValueStr(row))
		}
	}
	return found
}

func texts(reader array.RecordReader) []string {
	var found []string
	for reader.Next() {
		found = append(found, rowsOf(reader.RecordBatch())...)
	}
	return found
}
