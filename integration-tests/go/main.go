// Makes the calls of Go programs to the Flight SQL server through the ADBC driver, which compares every stream with the advertised schema.
//
//	check grpc://HOST:PORT full ROWS [OPTION=VALUE…]       ROWS: candles of ONE-USD from 2025-01-01 in bronze, none of another symbol
//	check grpc://HOST:PORT count ROWS [OPTION=VALUE…]      one query only
//	check grpc://HOST:PORT follow 0                        the tickets and metadata of proto/, by generated code
//	check grpc://HOST:PORT refused WORD [OPTION=VALUE…]    the log-in must fail as unauthenticated, with a message that contains WORD
//
// OPTION: an option of the driver, such as username. @FILE as VALUE is replaced by the contents of the file.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Longest time for all checks: far more than they take on a busy machine.
const deadline = 2 * time.Minute

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ADBC in Go:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) < 3 {
		return errors.New("usage: check URI full|count ROWS [OPTION=VALUE…] or check URI refused WORD [OPTION=VALUE…]")
	}
	if arguments[1] == "follow" {
		return checkFollow(ctx, arguments[0])
	}
	connection, err := connect(ctx, arguments[0], arguments[3:])
	if arguments[1] == "refused" {
		if err == nil {
			_, err = connection.GetTableTypes(ctx)
		}
		return refused("a log-in", err, adbc.StatusUnauthenticated, arguments[2])
	}
	if err != nil {
		return err
	}
	rows, err := strconv.ParseInt(arguments[2], 10, 64)
	if err != nil {
		return err
	}
	type check struct {
		name string
		run  func(context.Context, adbc.Connection, int64) error
	}
	checks := []check{{"count", checkCount}}
	more := []check{
		{"information", checkInfo},
		{"objects", checkObjects},
		{"table schemas", checkTableSchemas},
		{"queries", checkQueries},
		{"large results", checkLargeResults},
		{"parameters", checkParameters},
		{"partitions", checkPartitions},
		{"refusals", checkRefusals},
		{"cancellation", checkCancellation},
	}
	if arguments[1] == "full" {
		checks = append(checks, more...)
	}
	for _, it := range checks {
		if err := it.run(ctx, connection, rows); err != nil {
			return fmt.Errorf("%s: %w", it.name, err)
		}
	}
	fmt.Printf("ADBC in Go: all answers are correct; %d rows\n", rows)
	return connection.Close()
}

func connect(ctx context.Context, uri string, options []string) (adbc.Connection, error) {
	all := map[string]string{adbc.OptionKeyURI: uri}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		if path, isFile := strings.CutPrefix(value, "@"); isFile {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			value = string(text)
		}
		all[key] = value
	}
	database, err := flightsql.NewDriver(memory.DefaultAllocator).NewDatabase(all)
	if err != nil {
		return nil, err
	}
	return database.Open(ctx)
}

// refused returns nil if err has the code and its message contains the word.
func refused(what string, err error, code adbc.Status, word string) error {
	var refusal adbc.Error
	if !errors.As(err, &refusal) || refusal.Code != code || !strings.Contains(refusal.Msg, word) {
		return fmt.Errorf("%s must be refused by %v with %q, not by: %v", what, code, word, err)
	}
	return nil
}
