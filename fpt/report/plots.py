"""What runs look like: figures, as SVG for the page and as PNG files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator

from fpt.report.runs import Floats, Group, ReportedRun
from fpt.runs.curves import reaches
from fpt.runs.run import layers_and_neurons
from fpt.units import amount

# Okabe and Ito's colours, told apart by colour-blind people; the page takes the second of each pair in the dark.
COLOURS = {
    "#0072b2": "#3b97d3",
    "#d55e00": "#ee7733",
    "#009e73": "#1fb98d",
    "#cc79a7": "#d892ba",
    "#b8860b": "#e6b422",
    "#56b4e9": "#8fd0f5",
    "#666666": "#aaaaaa",
}
MARKERS = "osD^vPX"
STYLE = Path(__file__).with_name("plots.mplstyle")
_settings = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
INK, LINE, PAPER = _settings["text.color"], _settings["grid.color"], "#fefefe"
STYLED = matplotlib.style.context(["default", STYLE])
AXES = {"update": "updates", "flops": "FLOPs", "seconds": "seconds"}
MOST_POINTS = 600  # of a curve: as many as a plot is wide
MOST_NUMBERS = 12  # a heat map with more rows has no room for numbers in its cells


@dataclass(frozen=True)
class Plot:
    """A figure, drawn twice; `name` is its file's, `caption` what it shows; a wide one must not shrink at will."""

    name: str
    caption: str
    svg: str
    png: bytes
    is_wide: bool = False


@STYLED
def score(runs: Sequence[ReportedRun], key: str, name: str) -> Plot:
    """The main metric of runs of one task: hollow points on partial PLMs, filled ones on the full model.

    With vanilla prompt tuning among several finished runs, a line is what its last validations have in the mean, and a
    ring where another run's, on the full model, reach that for good.
    """
    figure, axes = _over_stages(runs, key)
    for run in runs:
        size = max(3, 5 - len(run.validations) / 20)
        points: dict[str, Any] = {"color": _colour(run), "marker": _marker(run), "markersize": size}
        x, y = (np.array([line[field] for line in run.validations], float) for field in (key, run.metric))
        full = np.array([run.is_full(line["stage"]) for line in run.validations])
        axes.plot(x, y, color=_colour(run), linewidth=1, linestyle=(0, (2, 2)))
        axes.plot(x[full], y[full], linewidth=1.8, **points)
        axes.plot(x[~full], y[~full], linestyle="", markerfacecolor=PAPER, **points)
    for value, baseline in sorted({(run.result["majority"], run.result["baseline"]) for run in runs if run.result}):
        axes.axhline(value, color=INK, linewidth=1, linestyle=(0, (5, 3)), alpha=0.7)
        where = axes.get_yaxis_transform()
        axes.annotate(f"{baseline} {value:.2f}", (1, value), (0, 3), where, "offset points", ha="right", fontsize=7.5)
    ends = [run.full_model[-1].score for run in runs if run.is_vanilla]
    if ends and len(runs) > 1:
        target = fmean(ends)
        axes.axhline(target, color=INK, linewidth=1, alpha=0.7)
        where = axes.get_yaxis_transform()
        label = f"vanilla prompt tuning's last {target:.2f}"
        axes.annotate(label, (0, target), (3, 3), where, "offset points", ha="left", fontsize=7.5)
        for run in (run for run in runs if not run.is_vanilla):
            spent = reaches(run.full_model, target)
            crossing = next((line for line in run.validations if line["flops"] == spent), None)
            if crossing:
                ring: dict[str, Any] = {"markersize": 13, "fillstyle": "none", "color": _colour(run)}
                axes.plot(crossing[key], crossing[run.metric], marker="o", **ring)
    axes.margins(y=0.12)
    axes.set_ylabel(f"{runs[0].metric}, validation")
    return _drawn(figure, name, f"{runs[0].metric} against {AXES[key]}")


@STYLED
def overview(groups: Sequence[Group], name: str) -> Plot:
    """Score against FLOPs, a line for each group of runs: the mean over its seeds, in a band from least to most.

    Full lines are scores on the full model, broken ones on partial PLMs.
    """
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes, metric, lines = figure.subplots(), groups[0].runs[0].metric, []
    for group in groups:
        look: dict[str, Any] = {"color": _colour(group.runs[0]), "marker": _marker(group.runs[0]), "markersize": 4}
        for is_full in (False, True):
            points = _over_seeds(group.runs, is_full)
            if len(points):
                flops, least, mean, most = points.T
                hollow: dict[str, Any] = {} if is_full else {"markerfacecolor": PAPER, "linestyle": (0, (2, 2))}
                axes.plot(flops, mean, linewidth=1.8 if is_full else 1, **look, **hollow)
                if is_full and len(group.runs) > 1:
                    axes.fill_between(flops, least, most, color=_colour(group.runs[0]), alpha=0.18, linewidth=0)
        lines.append(Line2D([], [], label=group.label, **look))
    runs = [run for group in groups for run in group.runs]
    for value, baseline in sorted({(run.result["majority"], run.result["baseline"]) for run in runs if run.result})[:1]:
        axes.axhline(value, color=INK, linewidth=1, linestyle=(0, (5, 3)), alpha=0.7)
        where = axes.get_yaxis_transform()
        axes.annotate(f"{baseline} {value:.2f}", (1, value), (0, 3), where, "offset points", ha="right", fontsize=7.5)
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    axes.xaxis.set_major_formatter(lambda value, _: amount(value) if value else "0")
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel(f"{metric}, validation")
    figure.legend(handles=lines, loc="outside lower center", ncols=2 if len(lines) > 1 else 1, fontsize=7.5)
    return _drawn(figure, name, f"{metric} against FLOPs, runs of one kind together")


def _over_seeds(runs: Sequence[ReportedRun], is_full: bool) -> Floats:
    """FLOPs in the mean, and the least, mean and most score over the runs, [validations, 4]."""
    scored: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        for line in run.validations:
            if run.is_full(line["stage"]) == is_full:
                scored.setdefault(line["update"], []).append((line["flops"], line[run.metric]))
    rows = []
    for _, points in sorted(scored.items()):
        flops, scores = zip(*points, strict=True)
        rows.append((fmean(flops), min(scores), fmean(scores), max(scores)))
    return np.array(rows, float)


@STYLED
def loss(runs: Sequence[ReportedRun], key: str, name: str) -> Plot:
    """Every update's loss, faint, and its running mean within each stage."""
    figure, axes = _over_stages(runs, key)
    means = []
    for run in runs:
        x, y = (np.array([line[field] for line in run.updates], float) for field in (key, "loss"))
        kept = _thinned(y)
        axes.plot(x[kept], y[kept], color=_colour(run), linewidth=0.7, alpha=0.3)
        stages = np.array([line["stage"] for line in run.updates])
        for stage in np.unique(stages):
            inside = stages == stage
            mean = _running_mean(y[inside], window(run))
            kept = _thinned(mean)
            axes.plot(x[inside][kept], mean[kept], color=_colour(run), linewidth=1.8)
            means.append(mean)
    lowest, highest = min(map(np.min, means)), max(map(np.max, means))
    if 0 < 10 * lowest < highest:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.set_ylabel("loss, training")
    return _drawn(figure, name, f"loss against {AXES[key]}")


def window(run: ReportedRun) -> int:
    """Over how many updates a loss is averaged."""
    return max(3, len(run.updates) // 40)


@STYLED
def memory(runs: Sequence[ReportedRun], name: str) -> Plot:
    """What each stage was planned to take on one device: weights, activations as the run keeps them, and the rest.

    A line across a bar is what the stage's updates were measured to take.
    """
    parts = {"weights": 1.0, "activations": 0.55, "prompt and optimizer": 0.25}
    figure = Figure(figsize=(5.6, 3.0), layout="constrained")
    axes, width = figure.subplots(), 0.8 / len(runs)
    for place, run in enumerate(runs):
        stages = [stage for stage in run.stages if stage["memory"]]
        weights, total, rest = (
            np.array([stage["memory"][part] for stage in stages], float) for part in ("weights", "total", "rest")
        )
        x = np.array([stage["index"] for stage in stages]) - 0.4 + width * (place + 0.5)
        under = np.zeros(len(stages))
        for values, alpha in zip((weights, total - weights - rest, rest), parts.values(), strict=True):
            axes.bar(x, values, width * 0.92, bottom=under, color=_colour(run), alpha=alpha)
            under += values
        for left, stage in zip(x, stages, strict=True):
            if stage["peak_memory"]:
                axes.hlines(stage["peak_memory"], left - 0.5 * width, left + 0.5 * width, color=INK, linewidth=1.5)
        for left, top in zip(x, under, strict=True) if len(runs) <= 3 else ():
            axes.annotate(f"{amount(top)}B", (left, top), (0, 2), textcoords="offset points", ha="center", size=7)
    axes.set_xticks(sorted({stage["index"] for run in runs for stage in run.stages}))
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("stage")
    axes.yaxis.set_major_formatter(lambda value, _: f"{amount(value)}B")
    axes.set_ylabel("memory of one device")
    shades = [Patch(color="#808080", alpha=alpha, label=part) for part, alpha in parts.items()]
    measured = [Line2D([], [], color=INK, linewidth=1.5, label="measured")] if any(run.peak for run in runs) else []
    figure.legend(handles=[*shades, *measured], loc="outside upper center", ncols=4, fontsize=7.5)
    _legend(figure, runs)
    return _drawn(figure, name, "memory per stage, planned and measured")


@matplotlib.style.context(["default", STYLE, {"axes.grid": False}])
def similarities(rows: Sequence[str], columns: Sequence[str], values: Floats, name: str) -> Plot:
    """Prompts against each other, [prompts, prompts]."""
    many = len(rows) > MOST_NUMBERS
    side = min(1.2 + (0.24 if many else 0.42) * len(rows), 24)
    size = min(7.5, 50 * side / len(rows))
    figure = Figure(figsize=(side + 1.6, side))
    axes = figure.subplots()
    lowest = min(0.0, float(values.min()))
    mesh = axes.pcolormesh(values, cmap="cividis", vmin=lowest, vmax=1, rasterized=len(rows) > 40)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=size)
    axes.set_xticks(np.arange(len(rows)) + 0.5, columns, fontsize=size, rotation=90 if many else 0)
    axes.spines[:].set_visible(False)
    for (row, column), value in [] if many else np.ndenumerate(values):
        ink = "w" if value < (1 + lowest) / 2 else "k"
        axes.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", size=7, color=ink)
    figure.colorbar(mesh, ax=axes, label="cosine similarity", shrink=0.8, pad=0.02).outline.set_visible(False)
    # The constrained layout leaves too little room for the labels of axes of a fixed aspect.
    return replace(_drawn(figure, name, "cosine similarity of prompts", "tight"), is_wide=many)


def _over_stages(runs: Sequence[ReportedRun], key: str) -> tuple[Figure, Axes]:
    """Axes for a curve against updates, FLOPs or seconds, with a strip above them that shows every run's stages."""
    figure = Figure(figsize=(4.2, 2.9 + 0.14 * len(runs)), layout=ConstrainedLayoutEngine(hspace=0.01))
    strip, axes = figure.subplots(2, 1, height_ratios=(0.16 * len(runs), 2.6), sharex=True)
    end = max(end for run in runs for *_, end in run.spans(key))
    _strip(strip, axes, runs, key, end)
    # The last validation ends after the last update.
    end = max([end, *(line[key] for run in runs for line in run.validations if key in line)])
    axes.set_xlim(0, 1.02 * end)
    scale, unit = 1, "training FLOPs" if key == "flops" else AXES[key]
    if key == "seconds" and end > 300:
        scale, unit = (3600, "hours") if end > 10_000 else (60, "minutes")
    axes.set_xticks([tick * scale for tick in MaxNLocator(5).tick_values(0, end / scale) if tick * scale <= end])
    text = amount if key == "flops" else lambda value: f"{value / scale:,.6g}"
    axes.xaxis.set_major_formatter(lambda value, _: text(value) if value else "0")
    axes.set_xlabel(unit)
    _legend(figure, runs)
    return figure, axes


def _strip(strip: Axes, axes: Axes, runs: Sequence[ReportedRun], key: str, widest: float) -> None:
    """Stages as bars, each with its number; expansions as dotted lines down through the plot of a single run."""
    alone = len(runs) == 1
    for place, run in enumerate(runs):
        for stage, start, end in run.spans(key):
            strip.barh(place, end - start, 0.86, left=start, color=_colour(run), alpha=0.28 if stage % 2 else 0.5)
            long = f"{stage}: {layers_and_neurons(run.plan['stages'][stage - 1])[0]}"
            room = (end - start) / widest
            text = long if alone and room > 0.15 else str(stage) if room > 0.03 else ""
            strip.text((start + end) / 2, place, text, ha="center", va="center_baseline", fontsize=6.5)
            if start and stage > 1 and alone:
                axes.axvline(start, color=INK, linewidth=0.8, linestyle=":", alpha=0.6)
    strip.set_ylim(len(runs) - 0.5, -0.5)
    strip.set_yticks(range(len(runs)), ["stage"] if alone else [f"run {run.number}" for run in runs], fontsize=7)
    strip.grid(visible=False)
    strip.spines[:].set_visible(False)
    strip.tick_params(labelbottom=False)


def _colour(run: ReportedRun) -> str:
    return list(COLOURS)[(run.number - 1) % len(COLOURS)]


def _marker(run: ReportedRun) -> str:
    """Another one when colours come round again."""
    return MARKERS[(run.number - 1 + (run.number - 1) // len(COLOURS)) % len(MARKERS)]


def _running_mean(values: Floats, size: int) -> Floats:
    """Of the `size` values around each, fewer at the ends."""
    kernel = np.ones(min(size, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _thinned(values: Floats) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Places of the values that a plot can show: the least and the largest of each stretch."""
    places = np.arange(len(values))
    if len(values) <= MOST_POINTS:
        return places
    stretches = np.array_split(places, MOST_POINTS // 2)
    return np.unique([stretch[end(values[stretch])] for stretch in stretches for end in (np.argmin, np.argmax)])


def _legend(figure: Figure, runs: Sequence[ReportedRun]) -> None:
    if len(runs) > 1:
        lines = [
            Line2D([], [], color=_colour(run), marker=_marker(run), markersize=4, label=f"{run.number} {run.label}")
            for run in runs
        ]
        columns = 2 if max(len(run.label) for run in runs) < 25 else 1
        figure.legend(handles=lines, loc="outside lower center", ncols=columns, fontsize=7)


def _drawn(figure: Figure, name: str, caption: str, box: str | None = None) -> Plot:
    svg, png = BytesIO(), BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(svg, format="svg", transparent=True, bbox_inches=box, metadata=metadata)
    figure.set_layout_engine("none")  # its places are found, and hold for the other format
    figure.savefig(png, format="png", dpi=160, bbox_inches=box, facecolor="white")
    return Plot(name, caption, _inline(svg.getvalue().decode(), caption), png.getvalue())


def _inline(svg: str, caption: str) -> str:
    """The SVG as a part of a page: as wide as there is room, in the page's colours, its groups without ids."""
    opening, _, rest = svg[svg.index("<svg") :].partition(">")
    box = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', opening)
    assert box
    wide = f'style="--width: {float(box[1]):.0f}pt"'
    head = f'<svg role="img" aria-label="{escape(caption)}" {box[0]} {wide} xmlns:xlink="http://www.w3.org/1999/xlink">'
    themed = {INK: "currentColor", LINE: "var(--line)", PAPER: "var(--card)"}
    themed |= {colour: f"var(--run-{number})" for number, colour in enumerate(COLOURS, 1)}
    body = re.sub(r'<g id="[^"]*">', "<g>", rest)
    return head + re.sub("|".join(themed), lambda match: themed[match[0]], body)
