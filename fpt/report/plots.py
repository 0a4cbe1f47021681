"""Draws the report's figures, as SVG."""

from collections.abc import Sequence
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.ndimage import uniform_filter1d

from fpt.units import amount

if TYPE_CHECKING:
    from fpt.report.page import ReportedRun

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#666666")
MARKERS = "osD^vPX"
STYLE = Path(__file__).with_name("plots.mplstyle")
INK = matplotlib.rc_params_from_file(STYLE, use_default_template=False)["text.color"]
STYLED = matplotlib.style.context(["default", STYLE])


class Plot(NamedTuple):
    """A figure, and a caption that says what it shows."""

    caption: str
    svg: bytes


@STYLED
def score(runs: Sequence["ReportedRun"]) -> Plot:
    """Plot the main metric against FLOPs; hollow points are scores on partial models, filled ones on the full model."""
    figure, axes = _figure(runs, "flops")
    for run, is_full in product(runs, (False, True)):
        lines = [line for line in run.validations if run.is_full(line["stage"]) == is_full]
        flops, scores = ([line[key] for line in lines] for key in ("flops", run.metric))
        partial: dict[str, Any] = {} if is_full else {"markerfacecolor": "w", "linestyle": (0, (2, 2))}
        axes.plot(flops, scores, linewidth=1.8 if is_full else 1, **_look(run), **partial)
    result = next((run.result for run in runs if run.result), None)
    if result:
        axes.axhline(result["majority"], color=INK, linewidth=1, linestyle=(0, (5, 3)), alpha=0.7)
        text, place = f"{result['baseline']} {result['majority']:.2f}", (1, result["majority"])
        axes.annotate(text, place, (0, 3), axes.get_yaxis_transform(), "offset points", ha="right", fontsize=7.5)
    axes.margins(y=0.12)
    axes.xaxis.set_major_formatter(lambda value, _: amount(value) if value else "0")
    axes.set_xlabel("training FLOPs")
    metric = runs[0].metric
    axes.set_ylabel(f"{metric}, validation")
    return _drawn(figure, f"{metric} against FLOPs")


@STYLED
def loss(runs: Sequence["ReportedRun"]) -> Plot:
    """Plot the training loss against updates: a running mean in each stage and, for a single run, every update too."""
    figure, axes = _figure(runs, "update")
    for run in runs:
        x, y, stages = (np.array([line[key] for line in run.updates], float) for key in ("update", "loss", "stage"))
        if len(runs) == 1:
            axes.plot(x, y, color=colour_of(run), linewidth=0.7, alpha=0.3)
        for stage in np.unique(stages):
            inside = stages == stage
            mean = uniform_filter1d(y[inside], max(3, len(run.updates) // 40), mode="nearest")
            axes.plot(x[inside], mean, color=colour_of(run), linewidth=1.8)
    axes.set_xlabel("updates")
    axes.set_ylabel("loss, training")
    return _drawn(figure, "loss against updates")


def _figure(runs: Sequence["ReportedRun"], key: str) -> tuple[Figure, Axes]:
    """Make axes with a legend below them or, for a single run, with a dotted line at every expansion."""
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.subplots()
    if len(runs) == 1:
        for stage, start, _ in runs[0].spans(key):
            if stage > 1:
                axes.axvline(start, color=INK, linewidth=0.8, linestyle=":", alpha=0.6)
    else:
        lines = [Line2D([], [], label=run.label, **_look(run)) for run in runs]
        figure.legend(handles=lines, loc="outside lower center", ncols=1 + (len(lines) > 1), fontsize=7)
    return figure, axes


def colour_of(run: "ReportedRun") -> str:
    """Return the colour in which a run is drawn."""
    return COLOURS[(run.number - 1) % len(COLOURS)]


def _look(run: "ReportedRun") -> dict[str, Any]:
    """Return a run's colour, and a marker that tells runs of one colour apart."""
    marker = MARKERS[(run.number - 1) // len(COLOURS) % len(MARKERS)]
    return {"color": colour_of(run), "marker": marker, "markersize": 4}


def _drawn(figure: Figure, caption: str) -> Plot:
    figure.axes[0].set_xlim(left=0)
    svg = BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return Plot(caption, svg.getvalue())
