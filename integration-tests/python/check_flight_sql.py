"""Asks the Flight SQL server what ADBC clients and the tools on them ask: about the server, its tables and keys, and prepared queries.

check_flight_sql.py grpc://host:port       bronze and gold hold candles of symbol ONE-USD from 2025-01-01, and of no other
"""

import datetime
import sys

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow

TABLES = {
    "public": {"bronze", "gold"},
    "system": {"dead_letters", "events", "history", "lag", "metrics", "queries", "services", "versions"},
}


def refused(cursor, query, word, parameters=None):
    """The query is refused with a status that is the client's fault, and a sentence that has the word."""
    try:
        cursor.execute(query, parameters)
        cursor.fetchall()
    except (flight_sql.ProgrammingError, flight_sql.NotSupportedError) as error:
        assert word in str(error), f"{query}: {error}"
        return
    raise AssertionError(f"{query}: was not refused")


def main():
    with flight_sql.connect(sys.argv[1], autocommit=True) as connection:
        info = connection.adbc_get_info()
        assert info["vendor_name"] == "Candleflight" and info["vendor_version"], info

        objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        assert [catalog["catalog_name"] for catalog in objects] == ["candleflight"], objects
        found = {schema["db_schema_name"]: schema["db_schema_tables"] for schema in objects[0]["catalog_db_schemas"]}
        assert {name: {table["table_name"] for table in tables} for name, tables in found.items()} == TABLES, found
        columns = {table["table_name"]: [column["column_name"] for column in table["table_columns"]] for table in found["public"]}
        assert columns["gold"][:3] == ["symbol", "event_time", "open"], columns
        some = connection.adbc_get_objects(depth="tables", db_schema_filter="pub%", table_name_filter="g_ld").read_all().to_pylist()
        assert [table["table_name"] for table in some[0]["catalog_db_schemas"][0]["db_schema_tables"]] == ["gold"], some
        assert connection.adbc_get_table_types() == ["TABLE"]

        with connection.cursor() as cursor:
            for table in ("bronze", "gold", "system.lag"):
                name = table.split(".")
                schema = connection.adbc_get_table_schema(name[-1], db_schema_filter=name[0] if len(name) > 1 else None)
                cursor.execute(f"SELECT * FROM {table}")
                streamed = cursor.fetch_arrow_table().schema
                assert schema.equals(streamed), f"{table}: advertised {schema}, streamed {streamed}"
                assert "view" not in str(streamed), streamed

            cursor.execute("SELECT count(*) FROM bronze")
            (rows,) = cursor.fetchone()
            cursor.execute("SELECT count(*), min(event_time) FROM bronze WHERE event_time >= '2025-01-01T12:00:00Z'")
            afternoon = cursor.fetchone()
            assert 0 < afternoon[0] < rows, afternoon
            noon = datetime.datetime(2025, 1, 1, 12, tzinfo=datetime.timezone.utc)
            cursor.execute("SELECT count(*), min(event_time) FROM bronze WHERE symbol = ? AND event_time >= ?", ("ONE-USD", noon))
            assert cursor.fetchone() == afternoon
            cursor.execute("SELECT count(*) FROM bronze WHERE symbol = $1 AND close > $2", ("ONE-USD", 0.0))
            assert cursor.fetchone() == (rows,)
            # Several rows of parameters are several executions.
            expected = cursor.adbc_prepare("SELECT ?, count(*) FROM bronze WHERE symbol = ?")
            assert len(expected) == 2, expected
            bound = pyarrow.table({"0": ["a", "b"], "1": ["ONE-USD", "none"]})
            cursor.execute("SELECT ?, count(*) FROM bronze WHERE symbol = ?", bound)
            assert sorted(cursor.fetchall()) == [("a", rows), ("b", 0)]
            cursor.execute("SELECT '?' AS mark, close FROM gold WHERE symbol = ? ORDER BY event_time LIMIT ?", ("ONE-USD", 3))
            assert [mark for mark, _ in cursor.fetchall()] == ["?"] * 3

            refused(cursor, "SELEC 1", "SELEC")
            refused(cursor, "SELECT nothing FROM bronze", "nothing")
            refused(cursor, "DELETE FROM bronze", "DML")
            refused(cursor, "CREATE TABLE mine (a int)", "DDL")
            refused(cursor, "COPY bronze TO '/tmp/bronze.csv'", "DML")
            refused(cursor, "CREATE EXTERNAL TABLE passwords STORED AS CSV LOCATION '/etc/passwd'", "DDL")
            refused(cursor, "SELECT * FROM '/etc/passwd'", "/etc/passwd")
            refused(cursor, "SELECT count(*) FROM bronze WHERE symbol = ? AND close > ?", "$2", ("ONE-USD",))
    print(f"ADBC: server, tables, keys and prepared queries are as they should be; {rows} rows")


main()
