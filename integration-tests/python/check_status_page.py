"""Checks a status page in a real Chromium while candles and a bad message arrive. Its numbers must equal those of /metrics, and must change.

check_status_page.py URL SCREENSHOT      `candleflight up` must be running, and a message that is not a candle must have been sent
"""

import json
import re
import sys
import time
import urllib.request

from playwright.sync_api import expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
WAIT_SECONDS_MAX = 60


def get(url, path):
    with urllib.request.urlopen(url + path, timeout=5) as answer:
        return answer.read().decode()


def metric(url, name):
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", get(url, "/metrics"), re.M))


def number(text):
    return float(text.replace(",", ""))


def main():
    url, screenshot = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page(viewport={"width": 1250, "height": 1000})
        errors, asked = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        stage = lambda name: page.locator(".stage", has_text=name).locator("b")
        try:
            expect(page.locator("#state")).to_have_text("all 4 services ready", timeout=WAIT_SECONDS_MAX * 1000)
            letter = page.locator("#letters tr", has_text="not_json")
            expect(letter).to_have_count(1, timeout=WAIT_SECONDS_MAX * 1000)
            until = time.monotonic() + WAIT_SECONDS_MAX
            # The page is up to a second old, so its value must lie between two readings of the metrics.
            while True:
                before = metric(url, "candleflight_producer_records_total")
                page.wait_for_timeout(1500)
                shown = number(stage("produced to Kafka").inner_text())
                after = metric(url, "candleflight_producer_records_total")
                if before <= shown <= after and before < after:
                    break
                assert time.monotonic() < until, f"the page shows {shown} produced, the metrics showed {before}, then {after}"
            expect(page.locator("#freshness b").first).to_have_text(re.compile(r"^[\d.]+ m?s$"))
            expect(page.locator("#freshness-line path"), "the sparkline has a median and a p99").to_have_count(2)
            points = re.compile("L.*L")
            expect(page.locator("#freshness-line path").first, "the sparkline has points").to_have_attribute("d", points, timeout=WAIT_SECONDS_MAX * 1000)
            # Bronze and gold reach the lake within ten seconds.
            expect(page.locator("#positions td.num", has_text="–")).to_have_count(0, timeout=WAIT_SECONDS_MAX * 1000)
            position = page.locator("#positions td.num").all_inner_texts()
            assert len(position) >= 6, f"every stage has a position: {position}"
            view = json.loads(get(url, "/status.json"))
            assert view["dead_letters"][0]["fields"]["reason"] == "not_json", view["dead_letters"]
            assert not errors, f"errors of the page: {errors}"
            assert all(address.startswith(url) for address in asked), f"the page sends requests to other sites: {asked}"
        finally:
            page.screenshot(path=screenshot, full_page=True)
            browser.close()
    print(f"status page: {shown:.0f} produced, positions {position}; screenshot: {screenshot}")


main()
