"""Runs other compute engines on the same work. Loads data, computes and checks results on request.

engines.py THREADS    reads one JSON object per line from standard input and writes one answer per line to standard output

  {"do": "candles", "file": PARQUET}             loads event_time, close and volume into every engine; returns the rows at which results are checked
  {"do": "kernel", "engine": ENGINE}             computes the windows of all rows; returns the seconds and the result of `judge`
  {"do": "judge", "rows": [[…]…]}                compares metrics of the checked rows, in the order of METRICS, with exact ones; returns error and wrong
  {"do": "lake", "folder": TABLE}                registers the live files of a Delta table in DuckDB and DataFusion as `bronze`; returns their number
  {"do": "sql", "engine": ENGINE, "query": SQL}  returns the seconds and the rows of the result, with times in microseconds
"""

import decimal
import json
import math
import os
import sys
import time
from fractions import Fraction

THREADS = int(sys.argv[1])
os.environ["POLARS_MAX_THREADS"] = str(THREADS)  # Polars reads it at import.

import datafusion  # noqa: E402
import deltalake  # noqa: E402
import duckdb  # noqa: E402
import pandas  # noqa: E402
import polars  # noqa: E402
import pyarrow  # noqa: E402
import pyarrow.parquet  # noqa: E402

WINDOWS = (5, 10, 30)
METRICS = [name.format(w) for w in WINDOWS for name in ("price_ma_{}m", "price_volatility_{}m", "volume_ma_{}m", "samples_{}m")]
CHECKED_ROWS = 3000

decimal.getcontext().prec = 40  # Far more digits than a float has, so that all errors are the engine's.


class Kernel:
    """Candles in the memory of every engine."""

    def __init__(self, file):
        table = pyarrow.parquet.read_table(file)
        self.table = table
        self.polars = polars.from_arrow(table).set_sorted("event_time")
        self.pandas = table.to_pandas().set_index("event_time")
        self.duckdb = duckdb.connect(config={"threads": THREADS})
        self.duckdb.register("source", table)
        self.duckdb.execute("CREATE TABLE candles AS SELECT * FROM source")
        self.datafusion = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(THREADS))
        self.datafusion.register_record_batches("candles", [table.to_batches(max_chunksize=8192)])
        step = max(1, len(table) // CHECKED_ROWS)
        self.checked = sorted({*range(min(len(table), 2 * max(WINDOWS))), *range(0, len(table), step)})
        self.expected = [self.exact(row) for row in self.checked]

    def run(self, engine):
        compute = {"Polars": self.by_polars, "DuckDB": self.by_duckdb, "DataFusion": self.by_datafusion, "pandas": self.by_pandas}[engine]
        begun = time.perf_counter()
        result = compute()
        seconds = time.perf_counter() - begun
        table = as_arrow(result)
        # SQL guarantees no order.
        if not is_sorted(table["event_time"]):
            table = table.sort_by("event_time")
        rows = table.select(METRICS).take(self.checked).to_pydict()
        return {"seconds": seconds, **self.judge([list(row) for row in zip(*(rows[metric] for metric in METRICS))])}

    def by_polars(self):
        close, volume = polars.col("close"), polars.col("volume")

        def window(w):
            metrics = (close.mean(), close.std(), volume.mean(), polars.len())
            names = METRICS[4 * WINDOWS.index(w) :]
            return self.polars.lazy().rolling("event_time", period=f"{w}m").agg(metric.alias(name) for metric, name in zip(metrics, names))

        return polars.collect_all([window(w) for w in WINDOWS])

    def by_pandas(self):
        columns = {}
        for w in WINDOWS:
            rolling = self.pandas.rolling(f"{w}min")
            close, volume = rolling["close"], rolling["volume"]
            columns |= dict(zip(METRICS[4 * WINDOWS.index(w) :], (close.mean(), close.std(), volume.mean(), close.count())))
        return pandas.DataFrame(columns)

    def by_duckdb(self):
        # RANGE includes both ends, so the interval is one microsecond shorter: the smallest step of DuckDB's times.
        return self.duckdb.sql(windows(lambda w: f"INTERVAL {w * 60_000_000 - 1} MICROSECONDS")).to_arrow_table()

    def by_datafusion(self):
        return self.datafusion.sql(windows(lambda w: f"INTERVAL '{w * 60_000_000 - 1} microseconds'")).to_arrow_table()

    def exact(self, row):
        """Computes the metrics of a row as fractions, and the volatilities as decimals."""
        begin = max(0, row + 1 - max(WINDOWS))
        times, closes, volumes = (self.table[column].slice(begin, row + 1 - begin) for column in ("event_time", "close", "volume"))
        times = times.cast("int64").to_pylist()
        closes, volumes = ([Fraction(value) for value in column.to_pylist()] for column in (closes, volumes))
        metrics = []
        for w in WINDOWS:
            n = sum(other > times[-1] - w * 60_000_000 for other in times)
            mean = sum(closes[-n:]) / n
            variance = sum((close - mean) ** 2 for close in closes[-n:]) / (n - 1) if n > 1 else None
            metrics += [mean, variance and root(variance), sum(volumes[-n:]) / n, n]
        return metrics

    def judge(self, rows):
        """Returns the largest relative error, and the number of wrong values: not 0 where 0 is right, not a number, or a wrong sample count."""
        error, wrong = decimal.Decimal(0), 0
        for found, expected in zip(rows, self.expected, strict=True):
            for metric, value, exact in zip(METRICS, found, expected, strict=True):
                if exact is None:
                    continue
                if metric.startswith("samples") or exact == 0 or value is None or math.isnan(value):
                    wrong += value != exact
                else:
                    exact = decimal_of(exact)
                    error = max(error, abs(decimal.Decimal(value) - exact) / abs(exact))
        return {"error": float(error), "wrong": wrong}


def windows(preceding):
    frames = ", ".join(f"w{w} AS (ORDER BY event_time RANGE BETWEEN {preceding(w)} PRECEDING AND CURRENT ROW)" for w in WINDOWS)
    functions = ("avg(close)", "stddev_samp(close)", "avg(volume)", "count(*)")
    metrics = ", ".join(f"{function} OVER w{w} AS {METRICS[4 * index + of]}" for index, w in enumerate(WINDOWS) for of, function in enumerate(functions))
    return f"SELECT event_time, {metrics} FROM candles WINDOW {frames}"


def root(variance):
    return decimal_of(variance).sqrt()


def decimal_of(value):
    return value if isinstance(value, decimal.Decimal) else decimal.Decimal(value.numerator) / value.denominator


def as_arrow(result):
    if isinstance(result, pandas.DataFrame):
        return pyarrow.Table.from_pandas(result.reset_index(), preserve_index=False)
    if isinstance(result, list):
        return polars.concat([result[0], *(frame.drop("event_time") for frame in result[1:])], how="horizontal").to_arrow()
    return result


def is_sorted(times):
    return polars.from_arrow(times.combine_chunks()).is_sorted()


class Lake:
    """Live files of bronze."""

    def __init__(self, folder):
        uris = deltalake.DeltaTable(folder).file_uris()
        files = sorted(uri.removeprefix("file://") for uri in uris)
        there = sorted(os.path.join(path, name) for path, _, names in os.walk(os.path.abspath(folder)) for name in names if name.endswith(".parquet") and "_delta_log" not in path)
        assert files == there, "a file in the folder is not live, but DataFusion would read it"
        self.duckdb = duckdb.connect(config={"threads": THREADS})
        self.duckdb.sql("SET TimeZone = 'UTC'; SET parquet_metadata_cache = true")
        self.duckdb.execute(f"CREATE VIEW bronze AS SELECT * FROM read_parquet({files}, hive_partitioning = true)")
        config = datafusion.SessionConfig().with_target_partitions(THREADS).with_parquet_pruning(True)
        self.datafusion = datafusion.SessionContext(config)
        self.datafusion.register_parquet("bronze", folder, table_partition_cols=[("date", pyarrow.date32())])
        self.files = len(files)

    def run(self, engine, query):
        sql = {"DuckDB": self.duckdb.sql, "DataFusion": self.datafusion.sql}[engine]
        begun = time.perf_counter()
        table = sql(query).to_arrow_table()
        seconds = time.perf_counter() - begun
        columns = [column.cast("int64") if pyarrow.types.is_timestamp(column.type) else column for column in table.columns]
        return {"seconds": seconds, "rows": [list(row) for row in zip(*(column.to_pylist() for column in columns))]}


def main():
    kernel = lake = None
    for line in sys.stdin:
        request = json.loads(line)
        answer = {}
        match request["do"]:
            case "candles":
                kernel = Kernel(request["file"])
                answer = {"rows": kernel.checked}
            case "kernel":
                answer = kernel.run(request["engine"])
            case "judge":
                answer = kernel.judge(request["rows"])
            case "lake":
                lake = Lake(request["folder"])
                answer = {"files": lake.files}
            case "sql":
                answer = lake.run(request["engine"], request["query"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
