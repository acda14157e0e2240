"""Makes the calls of programs that use Flight without Flight SQL to the Flight server, through pyarrow.flight.

check_pyarrow_flight.py grpc://HOST:PORT full ROWS [OPTION=VALUE…]       ROWS: candles in bronze
check_pyarrow_flight.py grpc://HOST:PORT count ROWS [OPTION=VALUE…]      one query only
check_pyarrow_flight.py grpc://HOST:PORT refused WORD [OPTION=VALUE…]    the log-in must fail as unauthenticated, with a message that contains WORD

OPTION: an option of FlightClient, such as tls_root_certs; user and password; token. @FILE as VALUE is replaced by the contents of the file.
"""

import json
import sys
import threading

import pyarrow
import pyarrow.flight as flight

from options import options


def field(number, value):
    """Returns one field of a protobuf message, which is a text or a message."""
    length, size = len(value), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + value


def statement(query):
    """Returns the Flight SQL command for a query, as a client without generated code writes it."""
    kind = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return flight.FlightDescriptor.for_command(field(1, kind) + field(2, field(1, query.encode())))


def refused(call, kind, word):
    try:
        call()
    except (pyarrow.lib.ArrowException, flight.FlightError) as error:
        assert isinstance(error, kind) and word in str(error), f"expected {kind} with {word!r}: {type(error)} {error}"
        return
    raise AssertionError(f"was not refused with {word!r}")


def connect(address, given):
    """Connects. Returns the client and the options of its calls."""
    login = {key: given.pop(key, None) for key in ("user", "password", "token")}
    client = flight.FlightClient(address, **{key: value.encode() if key == "tls_root_certs" else value for key, value in given.items()})
    headers = []
    if login["user"]:
        headers = [client.authenticate_basic_token(login["user"], login["password"])]
    elif login["token"]:
        headers = [(b"authorization", f"Bearer {login['token']}".encode())]
    return client, flight.FlightCallOptions(headers=headers)


def check_flights(client, login, rows):
    flights = {flight.descriptor.path[0].decode(): flight for flight in client.list_flights(options=login)}
    assert set(flights) == {"bronze", "gold"}, flights
    for table, listed in flights.items():
        path = flight.FlightDescriptor.for_path(table)
        info = client.get_flight_info(path, login)
        assert info.schema == listed.schema == client.get_schema(path, login).schema
        assert not info.endpoints[0].locations, "a location would mislead clients on other machines"
        # A query in a FlightInfo has an end.
        read = client.do_get(info.endpoints[0].ticket, login).read_all()
        assert read.schema == listed.schema and read.num_rows == rows, (table, read.num_rows, rows)
    info = client.get_flight_info(statement("SELECT symbol, close FROM bronze"), login)
    assert client.get_schema(statement("SELECT symbol, close FROM bronze"), login).schema == info.schema
    streamed = client.do_get(info.endpoints[0].ticket, login).read_all()
    assert streamed.schema == info.schema and streamed.num_rows == rows


def check_follower(client, login, rows):
    """A follower receives the existing rows, waits for more, and ends when it is cancelled."""
    reader = client.do_get(flight.Ticket(json.dumps({"read": "bronze", "from": {}}).encode()), login)
    read, position = 0, {}
    while read < rows:
        chunk = reader.read_chunk()
        span = json.loads(chunk.app_metadata.to_pybytes())["range"]
        assert position.get(span["partition"], 0) == span["first"], "ranges join"
        position[span["partition"]] = span["next"]
        read += chunk.data.num_rows
    (progress,) = client.do_action("progress", login)
    assert {int(key): value for key, value in json.loads(progress.body.to_pybytes())["received"].items()} == position
    threading.Timer(0.2, reader.cancel).start()

    def wait():
        while True:
            reader.read_chunk()

    refused(wait, flight.FlightCancelledError, "")


def check_refusals(client, login):
    actions = {action.type for action in client.list_actions(login)}
    assert {"progress", "CreatePreparedStatement", "ClosePreparedStatement", "CancelFlightInfo", "SetSessionOptions"} <= actions, actions
    refused(lambda: client.get_flight_info(flight.FlightDescriptor.for_path("nothing"), login), pyarrow.ArrowInvalid, "nothing")
    refused(lambda: client.get_flight_info(flight.FlightDescriptor.for_command(b"SELECT 1"), login), pyarrow.ArrowInvalid, "")
    refused(lambda: client.do_get(flight.Ticket(b'{"read":"nothing"}'), login).read_all(), pyarrow.ArrowInvalid, "nothing")
    refused(lambda: client.do_get(flight.Ticket(b"nothing"), login).read_all(), pyarrow.ArrowInvalid, "")
    refused(lambda: list(client.do_action("nothing", login)), pyarrow.ArrowInvalid, "nothing")
    schema = pyarrow.schema([("a", pyarrow.int64())])
    refused(lambda: client.do_put(flight.FlightDescriptor.for_path("nothing"), schema, login)[0].close(), pyarrow.ArrowNotImplementedError, "nothing")


def check_count(client, login, rows):
    info = client.get_flight_info(statement("SELECT count(*) AS n FROM bronze"), login)
    assert client.do_get(info.endpoints[0].ticket, login).read_all().to_pylist() == [{"n": rows}]


def main():
    address, what, expected = sys.argv[1:4]
    given = options(sys.argv[4:])
    if what == "refused":
        refused(lambda: check_count(*connect(address, given), 0), flight.FlightUnauthenticatedError, expected)
        return
    rows = int(expected)
    client, login = connect(address, given)
    check_count(client, login, rows)
    if what == "full":
        check_flights(client, login, rows)
        check_follower(client, login, rows)
        check_refusals(client, login)
    print(f"pyarrow.flight: all answers are correct; {rows} rows")


main()
