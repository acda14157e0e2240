"""Follows bronze and gold with the classes that protoc generates from the contract, and compares the rows with those of JSON tickets.

check_proto.py --flight grpc://host:port --proto FOLDER       FOLDER: the checkout's proto/
"""

import argparse
import importlib
import json
import pathlib
import sys
import tempfile

import grpc_tools.protoc
import pyarrow
import pyarrow.flight


def generate(folder):
    """Returns the module of the messages that travel on Flight."""
    target = tempfile.mkdtemp()
    files = [str(file) for file in pathlib.Path(folder).glob("candleflight/v1/*.proto")]
    assert files and grpc_tools.protoc.main(["protoc", f"-I{folder}", f"--python_out={target}", *files]) == 0
    sys.path.insert(0, target)
    return importlib.import_module("candleflight.v1.flight_pb2")


def read(client, ticket, range_of):
    """Returns the rows of a stream, and the end of each partition's ranges, which join."""
    reader = client.do_get(pyarrow.flight.Ticket(ticket))
    batches, ends = [], {}
    for chunk in reader:
        partition, first, following = range_of(chunk.app_metadata.to_pybytes())
        assert ends.get(partition, first) == first, f"partition {partition}: {first} after {ends[partition]}"
        ends[partition] = following
        batches.append(chunk.data)
    return pyarrow.Table.from_batches(batches, reader.schema), ends


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--flight", required=True)
    parser.add_argument("--proto", required=True)
    arguments = parser.parse_args()
    v1 = generate(arguments.proto)
    client = pyarrow.flight.connect(arguments.flight)

    question = v1.ProgressRequest(version=1).SerializeToString()
    (answer,) = client.do_action(pyarrow.flight.Action("progress", question))
    progress = v1.Progress.FromString(answer.body.to_pybytes())
    (answer,) = client.do_action("progress")
    as_json = json.loads(answer.body.to_pybytes())
    received = dict(progress.received.next)
    assert received and as_json["received"] == {str(partition): following for partition, following in received.items()}, as_json
    assert as_json["origin"]["table"] == progress.origin.table and as_json["origin"]["topic"]["name"] == progress.origin.topic.name

    def typed(metadata):
        span = v1.BatchMetadata.FromString(metadata).range
        return span.partition, span.first, span.next

    def plain(metadata):
        span = json.loads(metadata)["range"]
        assert all(type(number) is int for number in span.values()), span
        return span["partition"], span["first"], span["next"]

    for table, key in (("bronze", ["kafka_partition", "kafka_offset"]), ("gold", ["symbol", "event_time"])):
        follow = v1.Follow(until=progress.received, table=progress.origin.table)
        follow.position.SetInParent()
        rows, ends = read(client, v1.Ticket(**{table: follow}).SerializeToString(), typed)
        ticket = {"read": table, "from": {}, "until": as_json["received"], "table": as_json["origin"]["table"]}
        same, same_ends = read(client, json.dumps(ticket).encode(), plain)
        assert ends == same_ends == received, (ends, same_ends, received)
        order = [(column, "ascending") for column in key]
        rows, same = rows.sort_by(order), same.sort_by(order)
        assert rows.num_rows > 0 and rows.equals(same), f"{table}: {rows.num_rows} and {same.num_rows} rows"
        print(f"{table}: {rows.num_rows} rows by typed messages, the same by JSON")

    for ticket, reason in ((v1.Ticket(history=v1.History(symbol="A")), "margin"), (v1.Ticket(bronze=v1.Follow(table="another")), "another")):
        try:
            client.do_get(pyarrow.flight.Ticket(ticket.SerializeToString())).read_all()
        except pyarrow.ArrowException as error:
            assert reason in str(error), error
        else:
            raise AssertionError(f"{ticket} must be rejected")


main()
