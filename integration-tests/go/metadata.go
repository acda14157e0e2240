package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-go/v18/arrow/array"
)

var tables = map[string][]string{
	"public": {"bronze", "gold"},
	"system": {"dead_letters", "events", "history", "lag", "metrics", "queries", "services", "versions"},
}

func checkInfo(ctx context.Context, connection adbc.Connection, _ int64) error {
	codes := []adbc.InfoCode{adbc.InfoVendorName, adbc.InfoVendorVersion, adbc.InfoVendorArrowVersion, adbc.InfoVendorSql, adbc.InfoVendorSubstrait}
	reader, err := connection.GetInfo(ctx, codes)
	if err != nil {
		return err
	}
	defer reader.Release()
	found := map[uint32]string{}
	for reader.Next() {
		batch := reader.RecordBatch()
		names := batch.Column(0).(*array.Uint32)
		for row := range int(batch.NumRows()) {
			found[names.Value(row)] = batch.Column(1).ValueStr(row)
		}
	}
	if len(found) != len(codes) || !strings.Contains(found[uint32(adbc.InfoVendorName)], "Candleflight") {
		return fmt.Errorf("found %v", found)
	}
	return reader.Err()
}

// checkObjects requests the tree of objects down to each depth, and parts of it.
func checkObjects(ctx context.Context, connection adbc.Connection, _ int64) error {
	public, table, column := "pub%", "g_ld", "price_ma_%"
	filtered := []string{"candleflight", "public", "gold"}
	columns := append(slices.Clone(filtered), "price_ma_5m", "price_ma_10m", "price_ma_30m")
	every := []string{"candleflight"}
	var schemas []string
	for _, schema := range []string{"public", "system"} {
		schemas = append(schemas, schema)
		every = append(every, schema)
		every = append(every, tables[schema]...)
	}
	for _, it := range []struct {
		depth                 adbc.ObjectDepth
		schema, table, column *string
		expected              []string
	}{
		{adbc.ObjectDepthCatalogs, nil, nil, nil, []string{"candleflight"}},
		{adbc.ObjectDepthDBSchemas, nil, nil, nil, append([]string{"candleflight"}, schemas...)},
		{adbc.ObjectDepthTables, nil, nil, nil, every},
		{adbc.ObjectDepthTables, &public, &table, nil, filtered},
		{adbc.ObjectDepthAll, &public, &table, &column, columns},
	} {
		reader, err := connection.GetObjects(ctx, it.depth, nil, it.schema, it.table, it.column, nil)
		if err != nil {
			return err
		}
		if found := names(reader); !slices.Equal(found, it.expected) {
			return fmt.Errorf("depth %v: found %v, expected %v", it.depth, found, it.expected)
		}
		reader.Release()
	}
	views := []string{"VIEW"}
	reader, err := connection.GetObjects(ctx, adbc.ObjectDepthTables, nil, nil, nil, nil, views)
	if err != nil {
		return err
	}
	defer reader.Release()
	if found := names(reader); !slices.Equal(found, append([]string{"candleflight"}, schemas...)) {
		return fmt.Errorf("there are no views, but found %v", found)
	}
	types, err := connection.GetTableTypes(ctx)
	if err != nil {
		return err
	}
	defer types.Release()
	if found := texts(types); !slices.Equal(found, []string{"TABLE"}) {
		return fmt.Errorf("table types: %v", found)
	}
	return nil
}

// names walks the tree of objects: catalogs, schemas, tables, columns.
func names(reader array.RecordReader) []string {
	var found []string
	for reader.Next() {
		batch := reader.RecordBatch()
		for row := range int(batch.NumRows()) {
			found = append(found, batch.Column(0).ValueStr(row))
			found = append(found, namesBelow(batch.Column(1).(*array.List), row)...)
		}
	}
	return found
}

func namesBelow(lists *array.List, row int) []string {
	var found []string
	if lists.IsNull(row) {
		return found
	}
	objects := lists.ListValues().(*array.Struct)
	start, end := lists.ValueOffsets(row)
	for index := int(start); index < int(end); index++ {
		found = append(found, objects.Field(0).ValueStr(index))
		for child := 1; child < objects.NumField(); child++ {
			if below, isList := objects.Field(child).(*array.List); isList && !strings.Contains(below.DataType().String(), "constraint_name: utf8, nullable, constraint_type") {
				found = append(found, namesBelow(below, index)...)
			}
		}
	}
	return found
}

// checkTableSchemas compares the advertised schema of a table with the schema of a query on it.
func checkTableSchemas(ctx context.Context, connection adbc.Connection, _ int64) error {
	for schema, tables := range tables {
		for _, table := range tables {
			advertised, err := connection.GetTableSchema(ctx, nil, &schema, table)
			if err != nil {
				return err
			}
			query := fmt.Sprintf("SELECT * FROM %s.%s", schema, table)
			executed, err := schemaOf(ctx, connection, query)
			if err != nil {
				return err
			}
			result, err := execute(ctx, connection, query)
			if err != nil {
				return err
			}
			if !advertised.Equal(executed) || !advertised.Equal(result.schema) {
				return fmt.Errorf("%s: advertised %v, planned %v, streamed %v", table, advertised, executed, result.schema)
			}
		}
	}
	if _, err := connection.GetTableSchema(ctx, nil, nil, "nothing"); err == nil {
		return fmt.Errorf("a table that does not exist has a schema")
	}
	return nil
}
