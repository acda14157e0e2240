"""Recomputes gold from the CSV files with exact sums and compares every value in PostgreSQL to 1e-12 relative.

check_gold.py --postgres URL --frame time|rows FILE=SYMBOL...

Shares no code and no formula with the service: windows are filtered, not walked, and every sum is math.fsum, which rounds once.
"""

import argparse
import bisect
import csv
import math
import sys

import psycopg2

WINDOWS = (5, 10, 30)
RELATIVE_ERROR_MAX = 1e-12


def candles(path):
    """Returns (time in seconds, close, volume), ascending; the later line of a time wins."""
    with open(path, newline="") as file:
        rows = {float(row["Timestamp"]): (float(row["Close"]), float(row["Volume"])) for row in csv.DictReader(file)}
    return [(time, *rows[time]) for time in sorted(rows)]


def expected(rows, index, window, frame, times):
    if frame == "time":
        first = bisect.bisect_right(times, times[index] - window * 60)
    else:
        first = max(0, index - window + 1)
    closes = [close for _, close, _ in rows[first : index + 1]]
    volumes = [volume for _, _, volume in rows[first : index + 1]]
    count = len(closes)
    mean = math.fsum(closes) / count
    if count < 2:
        deviation = None
    elif min(closes) == max(closes):
        deviation = 0.0
    else:
        # Differences from the first close are exact for prices this near each other.
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
    parser.add_argument("--frame", choices=("time", "rows"), required=True)
    parser.add_argument("inputs", nargs="+")
    arguments = parser.parse_args()

    columns = ", ".join(f"price_ma_{w}m, price_volatility_{w}m, volume_ma_{w}m, samples_{w}m" for w in WINDOWS)
    query = f"SELECT extract(epoch FROM event_time)::float8, {columns} FROM bitcoin_gold_data WHERE symbol = %s ORDER BY 1"
    database = psycopg2.connect(arguments.postgres)
    values = differences = 0
    for argument in arguments.inputs:
        path, symbol = argument.rsplit("=", 1)
        rows = candles(path)
        times = [time for time, _, _ in rows]
        cursor = database.cursor()
        cursor.execute(query, (symbol,))
        gold = cursor.fetchall()
        if [row[0] for row in gold] != times:
            sys.exit(f"{symbol}: gold has {len(gold)} rows, the file {len(rows)} candles, or their times differ")
        for index, row in enumerate(gold):
            for position, window in enumerate(WINDOWS):
                wanted = expected(rows, index, window, arguments.frame, times)
                for found, value in zip(row[1 + 4 * position : 5 + 4 * position], wanted):
                    values += 1
                    if differs(found, value):
                        differences += 1
                        if differences <= 20:
                            print(f"{symbol} {row[0]} {window}m: found {found!r}, expected {value!r}")
    print(f"{values} gold values compared with exact sums, {differences} differ by more than {RELATIVE_ERROR_MAX} relative")
    sys.exit(1 if differences else 0)


main()
