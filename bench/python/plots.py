"""Draws plots from the file that `--values` has written.

plots.py VALUES FOLDER    writes ratios.svg (ours ÷ the best of the others, one bar per figure) and growth.svg (figures whose names begin with a number)
"""

import json
import math
import os
import re
import statistics
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "candleflight", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

from matplotlib import pyplot  # noqa: E402

GOOD, BAD, NEUTRAL = "#2a7f62", "#b5482f", "#5c6f82"
BAR_INCHES = 0.34
STEPS = (1, 2, 5)
X_VALUE = re.compile(r"([\d,]+)\s+(.*)")


def main(values, folder):
    with open(values) as file:
        figures = json.load(file)
    os.makedirs(folder, exist_ok=True)
    ratios = [bar for bar in map(ratio, figures) if bar]
    if ratios:
        draw_ratios(ratios, os.path.join(folder, "ratios.svg"))
    series = growth(figures)
    if series:
        draw_growth(series, os.path.join(folder, "growth.svg"))


def ratio(figure):
    """Returns the name of the figure, ours ÷ the best of the others, the aim, and true if less is better. Returns None without others or aim."""
    for aim in figure["aims"]:
        (kind, bound), = aim.items()
        others = {other["name"]: statistics.median(other["values"]) for other in figure["others"] if other["values"]}
        if kind in ("TimesGreatest", "TimesLeast") and others and figure["ours"]:
            less_is_better = kind == "TimesLeast"
            best = (min if less_is_better else max)(others, key=others.get)
            value = statistics.median(figure["ours"]) / others[best]
            if value > 0 and math.isfinite(value):
                return f"{figure['what']}\nbeside {best}", value, bound, less_is_better
    return None


def draw_ratios(bars, file):
    bars = bars[::-1]  # Bars are drawn from the bottom up.
    picture, axes = pyplot.subplots(figsize=(9, 1 + 1.6 * BAR_INCHES * len(bars)))
    met = [value <= aim if less else value >= aim for _, value, aim, less in bars]
    axes.barh(range(len(bars)), [value - 1 for _, value, _, _ in bars], left=1, height=0.5, color=[GOOD if good else BAD for good in met])
    for at, (_, value, aim, less) in enumerate(bars):
        axes.plot([aim, aim], [at - 0.4, at + 0.4], color="black", linewidth=1.5)
        axes.annotate(f"{value:.2g}", (value, at), xytext=(4 if value >= 1 else -4, 0), textcoords="offset points", va="center", ha="left" if value >= 1 else "right")
        axes.annotate("≤" if less else "≥", (aim, at + 0.4), xytext=(0, 1), textcoords="offset points", ha="center", va="bottom", fontsize=7)
    axes.set_xscale("log")
    shown = [1, *(number for _, value, aim, _ in bars for number in (value, aim))]
    axes.set_xlim(min(shown) / 1.6, max(shown) * 1.6)
    ticks = [step * 10.0**power for power in range(-4, 5) for step in STEPS]
    ticks = [tick for tick in ticks if min(shown) / 1.6 <= tick <= max(shown) * 1.6]
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(bars)), [name for name, *_ in bars])
    axes.set_xlabel("ours ÷ the best of the others, in the same run; the mark is the aim")
    save(picture, file)


def growth(figures):
    """Returns the lines of `growth` with at least two points: {name without its number: (unit, [(number, median)])}."""
    lines = {}
    for figure in figures:
        found = X_VALUE.match(figure["what"])
        if figure["measurement"] == "growth" and found and figure["ours"]:
            x, what = int(found[1].replace(",", "")), found[2]
            lines.setdefault(what, (figure["unit"], []))[1].append((x, statistics.median(figure["ours"])))
    return {what: line for what, line in lines.items() if len(line[1]) > 1}


def draw_growth(lines, file):
    picture, all_axes = pyplot.subplots(len(lines), figsize=(7, 2.2 * len(lines)), squeeze=False)
    for axes, (what, (unit, points)) in zip(all_axes[:, 0], lines.items()):
        points.sort()
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", color=NEUTRAL)
        axes.set_ylim(bottom=0)
        axes.set_title(what, loc="left", fontsize=9)
        axes.set_ylabel(unit)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    save(picture, file)


def save(picture, file):
    picture.tight_layout()
    picture.savefig(file, metadata={"Date": None})
    pyplot.close(picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
