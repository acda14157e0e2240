"""Reads bronze and gold with deltalake, Polars, plain PyArrow and ADBC, and compares them with each other and with PostgreSQL.

check_interop.py --lake s3://bucket/prefix --flight grpc://host:port --postgres URL       (AWS_… from the environment)
"""

import argparse

import adbc_driver_flightsql.dbapi
import deltalake
import polars
import psycopg2
import pyarrow.dataset
import pyarrow.flight
import pyarrow.fs

from options import s3_options

OPTIONS = s3_options()


def flight_rows(address, query):
    with adbc_driver_flightsql.dbapi.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return polars.from_arrow(cursor.fetch_arrow_table())


def same(name, ours, theirs):
    theirs = theirs.select(ours.columns).cast(ours.schema)
    assert ours.equals(theirs), f"{name}: the rows differ\n{ours}\n{theirs}"
    print(f"{name}: {len(ours)} rows, the same")


def main():
    parser = argparse.ArgumentParser()
    for flag in ("--lake", "--flight", "--postgres"):
        parser.add_argument(flag, required=True)
    arguments = parser.parse_args()

    bronze_key, gold_key = ["kafka_partition", "kafka_offset"], ["symbol", "event_time"]
    bronze = flight_rows(arguments.flight, "SELECT * FROM bronze ORDER BY kafka_partition, kafka_offset")
    gold = flight_rows(arguments.flight, "SELECT * FROM gold ORDER BY symbol, event_time")
    assert len(bronze) > 0 and len(gold) > 0

    for table, prefix, key in ((bronze, "streaming_raw", bronze_key), (gold, "gold_aggregates", gold_key)):
        url = f"{arguments.lake}/{prefix}"
        delta = deltalake.DeltaTable(url, storage_options=OPTIONS)
        same(f"deltalake {prefix}", table, polars.from_arrow(delta.to_pyarrow_table()).sort(key))
        same(f"Polars {prefix}", table, polars.scan_delta(url, storage_options=OPTIONS).collect().sort(key))

    # Plain Parquet without Delta, partitioned by date, as read by users of a Spark pipeline. This test has compacted nothing.
    endpoint = OPTIONS["AWS_ENDPOINT_URL"].removeprefix("http://")
    store = pyarrow.fs.S3FileSystem(
        endpoint_override=endpoint, scheme="http", access_key=OPTIONS["AWS_ACCESS_KEY_ID"], secret_key=OPTIONS["AWS_SECRET_ACCESS_KEY"]
    )
    path = f"{arguments.lake.removeprefix('s3://')}/streaming_raw"
    partitioning = pyarrow.dataset.partitioning(pyarrow.schema([("date", pyarrow.date32())]), flavor="hive")
    files = [file.path for file in store.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))]
    files = [file for file in files if file.endswith(".parquet") and "/date=" in file and "_delta_log" not in file]
    plain = pyarrow.dataset.dataset(files, filesystem=store, partitioning=partitioning, partition_base_dir=path)
    same("plain Parquet streaming_raw", bronze, polars.from_arrow(plain.to_table()).sort(bronze_key))

    with psycopg2.connect(arguments.postgres) as database, database.cursor() as cursor:
        cursor.execute("SELECT symbol, count(*), sum(samples_30m) FROM bitcoin_gold_data GROUP BY symbol ORDER BY symbol")
        expected = gold.group_by("symbol").agg(polars.len(), polars.col("samples_30m").cast(polars.Int64).sum()).sort("symbol")
        assert cursor.fetchall() == expected.rows(), "PostgreSQL and the lake differ"

    # A follower in Python: a JSON ticket, and each batch's range as JSON in its app_metadata.
    import json

    client = pyarrow.flight.FlightClient(arguments.flight.replace("grpc://", "grpc+tcp://"))
    ends = {str(partition): last + 1 for partition, last in bronze.group_by("kafka_partition").agg(polars.max("kafka_offset")).rows()}
    reader = client.do_get(pyarrow.flight.Ticket(json.dumps({"read": "bronze", "until": ends}).encode()))
    position, rows = {}, 0
    for chunk in reader:
        span = json.loads(chunk.app_metadata.to_pybytes())["range"]
        assert position.get(span["partition"], 0) == span["first"], "ranges join"
        position[span["partition"]] = span["next"]
        rows += chunk.data.num_rows
    assert rows == len(bronze) and {str(key): value for key, value in position.items()} == ends
    print(f"pyarrow.flight follower: {rows} rows")
    print("flights:", sorted(b".".join(info.descriptor.path).decode() for info in client.list_flights()))


main()
