"""Checks the dashboard in a real Chromium while candles arrive. Charts are drawn, values equal PostgreSQL's, and new rows appear without a click.

check_dashboard.py URL USER PASSWORD POSTGRES_URL SCREENSHOT      needs at least two symbols and a running pipeline, such as `candleflight up`

A value on the screen is correct if it was current between a reading of PostgreSQL before a refresh and one after it.
"""

import decimal
import pathlib
import re
import sys
import time
import urllib.parse

import psycopg2
from playwright.sync_api import expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
# As wide as a laptop's, and high enough for all charts, since charts out of sight are not loaded.
VIEWPORT = {"width": 1600, "height": 2700}
LOAD_MILLIS_MAX = 120_000
# The dashboard refreshes every 10 s. The rest of the time is for answers and drawing on a busy machine.
REFRESH_SECONDS_MAX = 45

ASSETS = pathlib.Path(__file__).parents[2] / "superset" / "assets"
# Series that each chart with a canvas must show, by their colours in dashboards/candleflight.yaml.
SERIES = {
    "Price and its moving averages": ("Price", "5 min average", "10 min average", "30 min average"),
    "Bollinger band (30 min average ± 2 standard deviations)": ("Price", "30 min average", "Lower band"),
    "Traded volume": ("Traded volume", "30 min average volume"),
    "Volatility (standard deviation of the price)": ("5 min volatility", "10 min volatility", "30 min volatility"),
    "Delay from Kafka to gold, in milliseconds": ("p50 (typical)", "p99 (slowest)"),
}
PIXELS_MIN = 30
# Changes by their hours. While the history is shorter, Superset shows NO_CHANGE, which no other chart may show.
CHANGES = {"Change over 1 hour": 1, "Change over 24 hours": 24}
NO_CHANGE = "No data"
# Counts the pixels of a colour in all canvases of an element. The tolerance covers antialiasing and the opacity of lines.
COUNT_PIXELS = """(element, colour) => [...element.querySelectorAll('canvas')].reduce((count, canvas) => {
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.length; i += 4)
        if (data[i + 3] > 200 && colour.every((value, channel) => Math.abs(data[i + channel] - value) < 12)) count++;
    return count;
}, 0)"""

CANDLE_COLUMNS = ("open", "high", "low", "close", "volume", "price_ma_5m", "price_ma_10m", "price_ma_30m", "price_volatility_5m", "price_volatility_30m")


def main():
    url, user, password, postgres, screenshot = sys.argv[1:]
    database = psycopg2.connect(postgres)
    database.autocommit = True
    database.cursor().execute("SET TimeZone = 'UTC'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page(viewport=VIEWPORT)
        page.set_default_timeout(LOAD_MILLIS_MAX)
        expect.set_options(timeout=LOAD_MILLIS_MAX)
        failed = []
        page.on("requestfailed", lambda request: failed.append((request.failure, request.url)))
        try:
            Check(page, database).run(url, user, password, screenshot)
        except Exception:
            print(f"failed requests, some of them cancelled by a new page: {failed}")
            page.screenshot(path=screenshot, full_page=True)
            raise
        finally:
            browser.close()


class Check:
    def __init__(self, page, database):
        self.page = page
        self.database = database
        self.foreign = []

    def run(self, url, user, password, screenshot):
        symbols = [symbol for (symbol,) in self.query("SELECT DISTINCT symbol FROM bitcoin_gold_data ORDER BY symbol")]
        assert len(symbols) >= 2, f"the filter needs two symbols to choose from, PostgreSQL has {symbols}"
        self.page.on("request", lambda request: self.watch(request, url))
        self.log_in(url, user, password)
        self.page.goto(f"{url}/superset/dashboard/candleflight/")
        self.charts_are_drawn()
        self.values_are_those_of_postgres(symbols[0], symbols)
        self.rows_arrive(symbols[0])
        self.charts_are_drawn()
        self.page.screenshot(path=screenshot, clip={"x": 0, "y": 0, "width": VIEWPORT["width"], "height": self.bottom() + 24})
        self.filter_works(symbols[1], symbols)
        # The page's own policy blocks the request for Superset's tracking pixel, so it never leaves the machine.
        assert all("scarf.sh" in address for address in self.foreign), f"the page sends requests to other sites: {self.foreign}"
        print(f"screenshot: {screenshot}")

    def query(self, text, *parameters):
        with self.database.cursor() as cursor:
            cursor.execute(text, parameters)
            return cursor.fetchall()

    def watch(self, request, url):
        address = urllib.parse.urlparse(request.url)
        if address.scheme in ("http", "https") and address.netloc != urllib.parse.urlparse(url).netloc:
            self.foreign.append(request.url)

    def log_in(self, url, user, password):
        self.page.goto(f"{url}/login/")
        cookies = self.page.context.cookies()
        self.page.evaluate("fetch('/superset/log/', {method: 'POST'})")
        assert self.page.context.cookies() == cookies, "an answer after the log-in would undo it"
        self.page.locator("#username").fill(user)
        self.page.locator("#password").fill(password)
        self.page.locator("#password").press("Enter")
        self.page.wait_for_url(lambda address: urllib.parse.urlparse(address).path == "/superset/welcome/", wait_until="load")
        print("logged in")

    def chart(self, name):
        return self.page.locator(f'[data-test-chart-name="{name}"]')

    def charts_are_drawn(self):
        names = [re.search("^slice_name: (.*)$", path.read_text(), re.M)[1] for path in sorted((ASSETS / "charts").glob("*.yaml"))]
        colours = dict(re.findall("^    (.+): '#(.{6})'$", (ASSETS / "dashboards" / "candleflight.yaml").read_text(), re.M))
        for name in names:
            chart = self.chart(name)
            drawn = chart.locator('[data-test="slice-container"]').locator("canvas, td, .header-line")
            expect(drawn.or_(chart.locator('[role="alert"]')).first, f"{name}: nothing is drawn").to_be_visible()
            text = chart.inner_text()
            assert chart.locator('[role="alert"], .ant-alert, .ant-empty').count() == 0, f"{name}: {text}"
            said = text.replace(NO_CHANGE, "") if name in CHANGES else text
            assert not re.search("error|no results|no data", said, re.I), f"{name}: {text}"
            for series in SERIES.get(name, ()):
                colour = [int(colours[series][i : i + 2], 16) for i in (0, 2, 4)]
                self.await_true(lambda: chart.evaluate(COUNT_PIXELS, colour) >= PIXELS_MIN, f"{name}: no line of {series} (#{colours[series]})")
            if chart.locator(".header-line").count():
                value = chart.locator(".header-line").inner_text()
                assert re.search(r"\d", value) or name in CHANGES and value == NO_CHANGE, f"{name}: shows {value}"
        assert set(SERIES) <= set(names), "a chart of this check does not exist"
        print(f"{len(names)} charts are drawn")

    def bottom(self):
        return self.page.evaluate("Math.max(...[...document.querySelectorAll('[data-test-chart-name]')].map(chart => chart.getBoundingClientRect().bottom))")

    def await_true(self, condition, message):
        until = time.monotonic() + REFRESH_SECONDS_MAX
        while not condition():
            assert time.monotonic() < until, message
            self.page.wait_for_timeout(200)

    def latest(self, symbol):
        return self.query("SELECT max(event_time) FROM bitcoin_gold_data WHERE symbol = %s", symbol)[0][0]

    def rows(self, name):
        """Returns a table's rows as dicts by column. The title of a cell has the full number, the text a rounded one."""
        cells = """table => [...table.querySelectorAll('tbody tr')].map(row => [...row.querySelectorAll('td')].map(cell =>
            [cell.getAttribute('aria-labelledby').slice('header-'.length), cell.innerText, cell.title]))"""
        return [{column: (text, title) for column, text, title in row} for row in self.chart(name).evaluate(cells)]

    def value(self, name):
        return self.chart(name).locator(".header-line").inner_text()

    def values_are_those_of_postgres(self, symbol, symbols):
        """Waits for a refresh after which all values equal those of PostgreSQL, and none is older than this call."""
        earliest, letters = self.latest(symbol), self.dead_letters()
        until = time.monotonic() + REFRESH_SECONDS_MAX
        while True:
            try:
                return self.compare(symbol, symbols, earliest, letters)
            except AssertionError:
                if time.monotonic() > until:
                    raise
            self.page.wait_for_timeout(200)

    def compare(self, symbol, symbols, earliest, letters_before):
        candles, table, letters = self.rows("Latest candles"), self.rows("All symbols"), self.rows("Dead letters (messages that could not be used)")
        price, price_time = self.value("Latest price"), self.chart("Latest price").locator(".kicker").inner_text()
        changes = {hours: self.value(name) for name, hours in CHANGES.items()}
        count = self.value("Dead letters")
        last = self.latest(symbol)

        # Each row on the screen equals one of PostgreSQL in all digits of every value, and the first row was the latest.
        known = {minute(row[0]): row[1:] for row in self.query(
            f"SELECT event_time, {', '.join(CANDLE_COLUMNS)} FROM bitcoin_gold_data WHERE symbol = %s AND event_time <= %s "
            "ORDER BY event_time DESC LIMIT 5000", symbol, last)}
        times = [row["event_time"][0] for row in candles]
        assert len(times) > 10 and times == sorted(times, reverse=True), f"latest candles: times {times}"
        assert between(earliest, times[0], last), f"latest candles: {times[0]} is not from {earliest} to {last}"
        for row in candles:
            for column, wanted in zip(CANDLE_COLUMNS, known[row["event_time"][0]]):
                text, title = row[column]
                digits = 3 if column == "volume" else 2
                shown = float(title) if title else None
                expected = "N/A" if wanted is None else fixed(wanted, digits)
                assert shown == wanted and text == expected, f"latest candles {row['event_time'][0]}: {column} is {text} ({title}), not {wanted}"

        assert between(earliest, price_time.removesuffix(" UTC"), last), f"latest price: of {price_time}, not from {earliest} to {last}"
        close = known[price_time.removesuffix(" UTC")][CANDLE_COLUMNS.index("close")]
        assert price == fixed(close, 2), f"latest price: {price}, not {close}"
        for hours, shown in changes.items():
            wanted = self.changes(symbol, hours, earliest, last)
            assert shown.replace("−", "-") in wanted, f"change over {hours} h: {shown}, not one of {sorted(wanted)}"

        assert [row["symbol"][0] for row in table] == symbols, f"all symbols: {table}"
        letters_after = self.dead_letters()
        assert len(letters_before) <= int(count.replace(",", "")) <= len(letters_after), f"dead letters: {count}, not {len(letters_after)}"
        if letters_after:
            for row in letters:
                shown = row["reason"][0], row["kafka_partition"][0], row["kafka_offset"][0].replace(",", ""), row["message"][0]
                assert shown in letters_after, f"dead letters: {shown} is not in PostgreSQL"
            assert len(letters) >= min(3, len(letters_before)), f"dead letters: {len(letters)} rows"
        else:
            assert [row["reason"][0] for row in letters] == ["none so far"], f"dead letters: {letters}"
        print(f"{symbol}: {len(candles)} candles, price, changes and {count} dead letters are those of PostgreSQL")

    def dead_letters(self):
        return {(reason, str(partition), str(offset), message) for reason, partition, offset, message in
                self.query("SELECT reason, kafka_partition, kafka_offset, message FROM bitcoin_dead_letters")}

    def changes(self, symbol, hours, earliest, last):
        """Returns the changes of all candles that were the latest in this time, formatted as on the screen."""
        rows = self.query(
            "SELECT close, (SELECT close FROM bitcoin_gold_data WHERE symbol = gold.symbol AND event_time <= gold.event_time - %s * interval '1 hour' "
            "ORDER BY event_time DESC LIMIT 1) FROM bitcoin_gold_data gold WHERE symbol = %s AND event_time BETWEEN %s AND %s", hours, symbol, earliest, last)
        return {NO_CHANGE if before is None else f"{'-' if close < before else '+'}{fixed(abs(close / before - 1) * 100, 2)}%" for close, before in rows}

    def rows_arrive(self, symbol):
        """Waits without a click until the screen shows a candle that was not in PostgreSQL at the start."""
        known, begin = minute(self.latest(symbol)), time.monotonic()
        newer = lambda: self.rows("Latest candles")[0]["event_time"][0] > known
        self.await_true(newer, f"no candle after {known} on the screen within {REFRESH_SECONDS_MAX} s; is the pipeline running?")
        print(f"new rows appeared without a click within {time.monotonic() - begin:.0f} s")

    def filter_works(self, symbol, symbols):
        self.page.locator('[data-test="NATIVE_FILTER-symbol"] .ant-select-selector').click()
        options = self.page.locator(".ant-select-item-option")
        expect(options).to_have_text(symbols)
        options.filter(has_text=symbol).click()
        self.page.locator('[data-test="filter-bar__apply-button"]').click()
        self.values_are_those_of_postgres(symbol, symbols)
        self.charts_are_drawn()


def between(earliest, shown, last):
    return minute(earliest) <= shown <= minute(last)


def minute(instant):
    return instant.strftime("%Y-%m-%d %H:%M")


def fixed(value, digits):
    """Formats a number as JavaScript does: rounded from its exact value, halves away from zero."""
    return f"{decimal.Decimal(value).quantize(decimal.Decimal(1).scaleb(-digits), decimal.ROUND_HALF_UP):,}"


main()
