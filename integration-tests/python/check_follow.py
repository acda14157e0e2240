"""Compares the SQLite file of examples/follow.py with gold.

check_follow.py gold.sqlite grpc://host:port
"""

import sqlite3
import sys

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow


def main():
    followed = set(sqlite3.connect(sys.argv[1]).execute("SELECT * FROM gold"))
    with flight_sql.connect(sys.argv[2], autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM gold")
        gold = cursor.fetch_arrow_table()
    columns = [column.cast(pyarrow.string()) if pyarrow.types.is_temporal(column.type) else column for column in gold.columns]
    gold = set(zip(*(column.to_pylist() for column in columns)))
    assert followed == gold, f"{len(followed - gold)} rows that are not in gold, {len(gold - followed)} missing of {len(gold)}"
    print(f"follow.py: {len(gold)} rows, the same as gold")


main()
