"""Recomputes gold from the CSV files with exact sums and compares every value in PostgreSQL and in the lake to 1e-12 relative.

check_gold.py --postgres URL --lake s3://bucket/prefix --frame time|rows FILE=SYMBOL...       (AWS_… from the environment)

The script shares no code and no formula with the service. It selects each window by a filter, and sums with math.fsum, which rounds once.
"""

import argparse
import bisect
import csv
import math
import sys

import deltalake
import polars
import psycopg2

from options import s3_options

WINDOWS = (5, 10, 30)
RELATIVE_ERROR_MAX = 1e-12


def candles(path):
    """Returns (time in seconds, open, high, low, close, volume), ascending. Of lines with the same time, the last one counts."""
    with open(path, newline="") as file:
        names = ("Open", "High", "Low", "Close", "Volume")
        rows = {float(row["Timestamp"]): tuple(float(row[name]) for name in names) for row in csv.DictReader(file)}
    return [(time, *rows[time]) for time in sorted(rows)]


def from_postgres(url, columns):
    database = psycopg2.connect(url)
    names = ", ".join(columns)

    def rows(symbol):
        cursor = database.cursor()
        query = f"SELECT extract(epoch FROM event_time)::float8, {names} FROM bitcoin_gold_data WHERE symbol = %s ORDER BY 1"
        cursor.execute(query, (symbol,))
        return cursor.fetchall()

    return rows


def from_lake(url, columns):
    table = deltalake.DeltaTable(f"{url}/gold_aggregates", storage_options=s3_options())
    gold = polars.from_arrow(table.to_pyarrow_table(columns=["symbol", "event_time", *columns]))
    seconds = polars.col("event_time").dt.epoch("us") / 1e6

    def rows(symbol):
        of_symbol = gold.filter(polars.col("symbol") == symbol).sort("event_time")
        return of_symbol.select(seconds, *columns).rows()

    return rows


def expected(rows, index, window, frame, times):
    if frame == "time":
        first = bisect.bisect_right(times, times[index] - window * 60)
    else:
        first = max(0, index - window + 1)
    closes = [row[4] for row in rows[first : index + 1]]
    volumes = [row[5] for row in rows[first : index + 1]]
    count = len(closes)
    mean = math.fsum(closes) / count
    if count < 2:
        deviation = None
    elif min(closes) == max(closes):
        deviation = 0.0
    else:
        # Differences from the first close are exact, since the prices are close to each other.
        differences = [close - closes[0] for close in closes]
        centre = math.fsum(differences) / count
        deviation = math.sqrt(math.fsum((difference - centre) ** 2 for difference in differences) / (count - 1))
    return mean, deviation, math.fsum(volumes) / count, count


def differs(found, wanted):
    if found is None or wanted is None:
        return found is not wanted
    return found != wanted and abs(found - wanted) > RELATIVE_ERROR_MAX * abs(wanted)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--frame", choices=("time", "rows"), required=True)
    parser.add_argument("inputs", nargs="+")
    arguments = parser.parse_args()

    candle = ["open", "high", "low", "close", "volume"]
    metrics = [f"{metric}_{w}m" for w in WINDOWS for metric in ("price_ma", "price_volatility", "volume_ma", "samples")]
    stores = {
        "PostgreSQL": from_postgres(arguments.postgres, candle + metrics),
        "lake": from_lake(arguments.lake, candle + metrics),
    }
    values = differences = 0
    for argument in arguments.inputs:
        path, symbol = argument.rsplit("=", 1)
        rows = candles(path)
        times = [time for time, *_ in rows]
        wanted = [(*row[1:], *(value for window in WINDOWS for value in expected(rows, index, window, arguments.frame, times)))
                  for index, row in enumerate(rows)]
        for store, read in stores.items():
            gold = read(symbol)
            if [row[0] for row in gold] != times:
                sys.exit(f"{symbol}: gold in {store} has {len(gold)} rows, the file {len(rows)} candles, or their times differ")
            for (time, *found), wanted_row in zip(gold, wanted):
                for column, (have, want) in enumerate(zip(found, wanted_row, strict=True)):
                    values += 1
                    if have != want if column < len(candle) else differs(have, want):
                        differences += 1
                        if differences <= 20:
                            print(f"{store}, {symbol} {time} {(candle + metrics)[column]}: found {have!r}, expected {want!r}")
    print(f"{values} gold values compared with exact sums, {differences} differ by more than {RELATIVE_ERROR_MAX} relative")
    sys.exit(1 if differences else 0)


main()
