"""Follows gold into a SQLite file, which holds each row as it was last changed, whatever is stopped or killed.

follow.py gold.sqlite                  continues where the file ends; a new file starts with the rows that come from now on
follow.py gold.sqlite --from '{}'      a new file starts with all of gold
follow.py gold.sqlite --from '{"time":"2026-01-01T00:00:00Z"}'

Needs pyarrow. Logs in if CANDLEFLIGHT_PASSWORD is set, as CANDLEFLIGHT_USER.
"""

import argparse
import json
import os
import sqlite3
import time

import pyarrow
from pyarrow import flight

PASSING = (flight.FlightUnavailableError, flight.FlightInternalError, flight.FlightCancelledError, flight.FlightTimedOutError)


def connect(address):
    client = flight.FlightClient(address)
    options = flight.FlightCallOptions()
    if password := os.environ.get("CANDLEFLIGHT_PASSWORD"):
        token = client.authenticate_basic_token(os.environ.get("CANDLEFLIGHT_USER", "candleflight"), password)
        options = flight.FlightCallOptions(headers=[token])
    return client, options


def follow(client, options, database, start):
    position = dict(database.execute("SELECT partition, next_offset FROM position"))
    ticket = {"read": "gold", "from": position or start}
    for chunk in client.do_get(flight.Ticket(json.dumps(ticket).encode()), options):
        span = json.loads(chunk.app_metadata.to_pybytes())["range"]
        rows = [tuple(row.values()) for row in readable(chunk.data).to_pylist()]
        with database:  # One transaction: rows and position are both there or neither is.
            places = ", ".join("?" * chunk.data.num_columns)
            # Gold's key is (symbol, event_time): a row that comes again replaces the one before.
            database.executemany(f"INSERT OR REPLACE INTO gold VALUES ({places})", rows)
            database.execute("INSERT OR REPLACE INTO position VALUES (?, ?)", (span["partition"], span["next"]))
        for row in rows:
            print(*row[:7], flush=True)


def readable(batch):
    """Times as text, since SQLite has no type for them."""
    is_time = pyarrow.types.is_temporal
    columns = [column.cast(pyarrow.string()) if is_time(column.type) else column for column in batch.columns]
    return pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)


def create(client, options, database):
    schema = client.get_flight_info(flight.FlightDescriptor.for_path("gold"), options).schema
    with database:
        database.execute(f"CREATE TABLE IF NOT EXISTS gold ({', '.join(schema.names)}, PRIMARY KEY (symbol, event_time))")
        database.execute("CREATE TABLE IF NOT EXISTS position (partition PRIMARY KEY, next_offset)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("--flight", default=os.environ.get("CANDLEFLIGHT_FLIGHT", "grpc://127.0.0.1:50051"))
    parser.add_argument("--from", dest="start", type=json.loads, default='"now"')
    arguments = parser.parse_args()
    database = sqlite3.connect(arguments.database)
    while True:
        try:
            client, options = connect(arguments.flight)
            create(client, options, database)
            follow(client, options, database, arguments.start)
        except PASSING as error:
            print("connecting again:", str(error).splitlines()[0], flush=True)
        time.sleep(0.5)


main()
