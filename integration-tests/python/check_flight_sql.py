"""Makes the calls of ADBC clients and their tools to the Flight SQL server: notebooks with pandas, Polars, DuckDB and PyArrow.

check_flight_sql.py grpc://HOST:PORT full ROWS [OPTION=VALUE…]       ROWS: candles of ONE-USD from 2025-01-01 in bronze, none of another symbol
check_flight_sql.py grpc://HOST:PORT count ROWS [OPTION=VALUE…]      one query only
check_flight_sql.py grpc://HOST:PORT refused WORD [OPTION=VALUE…]    the log-in must fail as unauthenticated, with a message that contains WORD

OPTION: an option of the driver, such as username. @FILE as VALUE is replaced by the contents of the file.
"""

import datetime
import sys
import threading

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager

from options import options

TABLES = {
    "public": {"bronze", "gold"},
    "system": {"dead_letters", "events", "history", "lag", "metrics", "queries", "services", "versions"},
}
# This query ends only with its client.
ENDLESS = "SELECT sum(a.value * b.value) FROM generate_series(1, 10000000) a CROSS JOIN generate_series(1, 10000000) b"


def refused(call, code, word):
    """Checks that the call fails with this status and a message that contains the word."""
    try:
        call()
    except flight_sql.Error as error:
        assert error.status_code == code and word in str(error), f"expected {code} with {word!r}: {error.status_code} {error}"
        return
    raise AssertionError(f"was not refused with {word!r}")


def check_metadata(connection):
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Candleflight" and info["vendor_version"], info
    objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    assert [catalog["catalog_name"] for catalog in objects] == ["candleflight"], objects
    found = {schema["db_schema_name"]: schema["db_schema_tables"] for schema in objects[0]["catalog_db_schemas"]}
    assert {name: {table["table_name"] for table in tables} for name, tables in found.items()} == TABLES, found
    columns = {table["table_name"]: [column["column_name"] for column in table["table_columns"]] for table in found["public"]}
    assert columns["gold"][:3] == ["symbol", "event_time", "open"], columns
    for depth, expected in (("catalogs", 1), ("db_schemas", 1)):
        assert connection.adbc_get_objects(depth=depth).read_all().num_rows == expected, depth
    some = connection.adbc_get_objects(depth="tables", db_schema_filter="pub%", table_name_filter="g_ld").read_all().to_pylist()
    assert [table["table_name"] for table in some[0]["catalog_db_schemas"][0]["db_schema_tables"]] == ["gold"], some
    assert connection.adbc_get_table_types() == ["TABLE"]
    with connection.cursor() as cursor:
        for table in ("bronze", "gold", "system.lag"):
            name = table.split(".")
            advertised = connection.adbc_get_table_schema(name[-1], db_schema_filter=name[0] if len(name) > 1 else None)
            planned = cursor.adbc_execute_schema(f"SELECT * FROM {table}")
            cursor.execute(f"SELECT * FROM {table}")
            streamed = cursor.fetch_arrow_table().schema
            assert advertised.equals(streamed) and planned.equals(streamed), f"{table}: {advertised}, {planned}, {streamed}"
            assert "view" not in str(streamed), streamed


def check_sessions(connect):
    """A setting applies to the connection that made it."""
    with connect({"adbc.flight.sql.rpc.with_cookie_middleware": "true"}) as connection, connection.cursor() as cursor:
        assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == ("candleflight", "public")
        connection.adbc_current_db_schema = "system"
        assert connection.adbc_current_db_schema == "system"
        cursor.execute("SELECT count(*) FROM services")
        assert cursor.fetchone()[0] > 0
        cursor.execute("SELECT count(*) FROM public.gold")
        assert cursor.fetchone()[0] > 0


def check_parameters(cursor, rows):
    import pyarrow

    cursor.execute("SELECT count(*), min(event_time) FROM bronze WHERE event_time >= '2025-01-01T12:00:00Z'")
    afternoon = cursor.fetchone()
    assert 0 < afternoon[0] < rows, afternoon
    noon = datetime.datetime(2025, 1, 1, 12, tzinfo=datetime.timezone.utc)
    cursor.execute("SELECT count(*), min(event_time) FROM bronze WHERE symbol = ? AND event_time >= ?", ("ONE-USD", noon))
    assert cursor.fetchone() == afternoon
    cursor.execute("SELECT count(*) FROM bronze WHERE symbol = $1 AND close > $2", ("ONE-USD", 0.0))
    assert cursor.fetchone() == (rows,)
    # Each row of parameters is one execution.
    expected = cursor.adbc_prepare("SELECT ?, count(*) FROM bronze WHERE symbol = ?")
    assert len(expected) == 2, expected
    bound = pyarrow.table({"0": ["a", "b"], "1": ["ONE-USD", "none"]})
    cursor.execute("SELECT ?, count(*) FROM bronze WHERE symbol = ?", bound)
    assert sorted(cursor.fetchall()) == [("a", rows), ("b", 0)]
    cursor.execute("SELECT '?' AS mark, close FROM gold WHERE symbol = ? ORDER BY event_time LIMIT ?", ("ONE-USD", 3))
    assert [mark for mark, _ in cursor.fetchall()] == ["?"] * 3
    cursor.execute("SELECT count(*) FROM bronze WHERE symbol = ?", (None,))
    assert cursor.fetchone() == (0,)


def check_engines(connection, rows):
    """pandas, Polars and DuckDB read the same candles as plain rows."""
    import duckdb
    import pandas
    import polars

    query = "SELECT symbol, event_time, close, date FROM bronze ORDER BY event_time"
    with connection.cursor() as cursor:
        cursor.execute(query)
        expected = cursor.fetchall()
        assert len(expected) == rows and expected[0][1] == datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc), expected[0]
        in_pandas = pandas.read_sql(query, connection)
        assert str(in_pandas["event_time"].dtype) == "datetime64[us, UTC]", in_pandas.dtypes
        assert list(in_pandas["close"]) == [row[2] for row in expected]
        in_polars = polars.read_database(query, connection)
        assert in_polars.schema["event_time"] == polars.Datetime("us", "UTC"), in_polars.schema
        assert in_polars.rows() == expected
        some = {"parameters": ("ONE-USD", 5)}
        some = polars.read_database("SELECT close FROM bronze WHERE symbol = ? ORDER BY event_time LIMIT ?", connection, execute_options=some)
        assert some["close"].to_list() == [row[2] for row in expected[:5]]
        cursor.execute(query)
        streamed = cursor.fetch_record_batch()
        in_duckdb = duckdb.sql("SELECT symbol, count(*), epoch_us(max(event_time)), sum(close) FROM streamed GROUP BY symbol").fetchall()
        assert len(in_duckdb) == 1 and in_duckdb[0][:2] == ("ONE-USD", rows), in_duckdb
        assert in_duckdb[0][2] == expected[-1][1].timestamp() * 1_000_000, in_duckdb
        assert abs(in_duckdb[0][3] / sum(row[2] for row in expected) - 1) < 1e-12, in_duckdb


def check_results(cursor, rows):
    """Checks partitions, results of many messages, and a result of one message that cannot be split."""
    partitions, schema = cursor.adbc_execute_partitions("SELECT symbol, close FROM bronze")
    read = 0
    for partition in partitions:
        cursor.adbc_read_partition(partition)
        table = cursor.fetch_arrow_table()
        assert table.schema.equals(schema), table.schema
        read += table.num_rows
    assert partitions and read == rows, read
    cursor.execute("SELECT bronze.* FROM bronze CROSS JOIN generate_series(1, 20)")
    assert cursor.fetch_arrow_table().num_rows == 20 * rows
    cursor.execute("SELECT repeat(symbol, 900000) FROM bronze LIMIT 1")
    assert len(cursor.fetchone()[0]) == 900_000 * len("ONE-USD")


def check_refusals(cursor):
    status = adbc_driver_manager.AdbcStatusCode
    for query, word in (
        ("SELEC 1", "SELEC"),
        ("SELECT nothing FROM bronze", "nothing"),
        ("DELETE FROM bronze", "DML"),
        ("CREATE TABLE mine (a int)", "DDL"),
        ("COPY bronze TO '/tmp/bronze.csv'", "DML"),
        ("CREATE EXTERNAL TABLE passwords STORED AS CSV LOCATION '/etc/passwd'", "DDL"),
        ("SELECT * FROM '/etc/passwd'", "/etc/passwd"),
        # This query fails only during execution.
        ("SELECT CAST(symbol AS int) FROM bronze", "ONE-USD"),
    ):
        refused(lambda: (cursor.execute(query), cursor.fetchall()), status.INVALID_ARGUMENT, word)
    unbound = "SELECT count(*) FROM bronze WHERE symbol = ? AND close > ?"
    refused(lambda: (cursor.execute(unbound, ("ONE-USD",)), cursor.fetchall()), status.INVALID_ARGUMENT, "$2")
    many = ("SELECT count(*) FROM bronze WHERE symbol = ?", [("a",), ("b",)])
    refused(lambda: cursor.executemany(*many), status.NOT_IMPLEMENTED, "read-only")
    refused(lambda: cursor.executescript("DELETE FROM bronze"), status.NOT_IMPLEMENTED, "read-only")


def check_cancellation(connection, rows):
    """Another thread cancels a query before its first row. The connection stays usable."""
    with connection.cursor() as cursor:
        cancel = threading.Timer(0.3, cursor.adbc_cancel)
        cancel.start()
        refused(lambda: (cursor.execute(ENDLESS), cursor.fetchall()), adbc_driver_manager.AdbcStatusCode.CANCELLED, "cancel")
        cancel.join()
    check_count(connection, rows)


def check_count(connection, rows):
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM bronze")
        assert cursor.fetchone() == (rows,)


def main():
    address, what, expected = sys.argv[1:4]

    def connect(more=None):
        return flight_sql.connect(address, db_kwargs=options(sys.argv[4:]) | (more or {}), autocommit=True)

    if what == "refused":
        refused(lambda: check_count(connect(), 0), adbc_driver_manager.AdbcStatusCode.UNAUTHENTICATED, expected)
        return
    rows = int(expected)
    with connect() as connection:
        check_count(connection, rows)
        if what == "full":
            check_metadata(connection)
            check_engines(connection, rows)
            check_sessions(connect)
            with connection.cursor() as cursor:
                check_parameters(cursor, rows)
                check_results(cursor, rows)
                check_refusals(cursor)
            check_cancellation(connection, rows)
    print(f"ADBC in Python: all answers are correct; {rows} rows")


main()
