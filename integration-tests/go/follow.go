package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	v1 "candleflight/check/v1"
)

// checkFollow follows bronze and gold up to where bronze is, with the messages that protoc generates from the contract.
func checkFollow(ctx context.Context, uri string) error {
	address := strings.TrimPrefix(uri, "grpc://")
	client, err := flight.NewClientWithMiddleware(address, nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer client.Close()
	progress, err := askProgress(ctx, client)
	if err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	until := progress.GetReceived()
	start := &v1.Follow_Position{Position: &v1.Position{}}
	follow := &v1.Follow{From: start, Until: until, Table: proto.String(progress.GetOrigin().GetTable())}
	tickets := map[string]*v1.Ticket{
		"bronze": {Read: &v1.Ticket_Bronze{Bronze: follow}},
		"gold":   {Read: &v1.Ticket_Gold{Gold: follow}},
	}
	for table, ticket := range tickets {
		rows, ends, err := readTable(ctx, client, ticket)
		if err != nil {
			return fmt.Errorf("%s: %w", table, err)
		}
		if rows == 0 || !proto.Equal(&v1.Position{Next: ends}, until) {
			return fmt.Errorf("%s: %d rows up to %v, not %v", table, rows, ends, until)
		}
		fmt.Printf("%s: %d rows by typed messages in Go\n", table, rows)
	}
	return nil
}

func askProgress(ctx context.Context, client flight.Client) (*v1.Progress, error) {
	question, err := proto.Marshal(&v1.ProgressRequest{Version: 1})
	if err != nil {
		return nil, err
	}
	answers, err := client.DoAction(ctx, &flight.Action{Type: "progress", Body: question})
	if err != nil {
		return nil, err
	}
	answer, err := answers.Recv()
	if err != nil {
		return nil, err
	}
	progress := &v1.Progress{}
	return progress, proto.Unmarshal(answer.GetBody(), progress)
}

// readTable returns how many rows a stream has, and the ends of its ranges, which join.
func readTable(ctx context.Context, client flight.Client, ticket *v1.Ticket) (int64, map[int32]int64, error) {
	bytes, err := proto.Marshal(ticket)
	if err != nil {
		return 0, nil, err
	}
	stream, err := client.DoGet(ctx, &flight.Ticket{Ticket: bytes})
	if err != nil {
		return 0, nil, err
	}
	reader, err := flight.NewRecordReader(stream)
	if err != nil {
		return 0, nil, err
	}
	defer reader.Release()
	rows, ends := int64(0), map[int32]int64{}
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return rows, ends, nil
		}
		if err != nil {
			return 0, nil, err
		}
		metadata := &v1.BatchMetadata{}
		if err := proto.Unmarshal(reader.LatestAppMetadata(), metadata); err != nil {
			return 0, nil, err
		}
		span := metadata.GetRange()
		if end, ok := ends[span.GetPartition()]; ok && end != span.GetFirst() {
			return 0, nil, fmt.Errorf("%v does not begin at %d", span, end)
		}
		ends[span.GetPartition()] = span.GetNext()
		rows += record.NumRows()
	}
}
