"""The picture of docs/results.md, what parts of real models are worth: loss against the share of FLOPs."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from bench.svg import text_of
from fpt.report.plots import COLOURS, INK, MARKERS, STYLED

NAMES = {"smollm2": "SmolLM2 135M, 30 blocks", "gemma3": "Gemma 3 270M, 18 blocks"}
WAYS = {
    "evenly": "blocks left out evenly",
    "late": "the last blocks but one left out",
    "outer": "a gap in the middle left out",
    "influence": "least influential blocks left out",
    "loss": "blocks left out one by one, by loss",
    "neurons by activity": "least active neurons left out",
    "neurons by variance": "least varying neurons at their mean",
}
MOST = 13.0  # what is worse is drawn at the edge


@STYLED
def drawn(rows: Sequence[dict[str, Any]]) -> str:
    """Draw a panel for each model, as SVG."""
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    for axes, (model, name) in zip(figure.subplots(1, len(NAMES), sharey=True), NAMES.items(), strict=True):
        own = [row for row in rows if (row["model"], row["text"]) == (model, "sentences")]
        whole = next(row["loss"] for row in own if row["way"] == "whole")
        for (way, label), colour, marker in zip(WAYS.items(), COLOURS, MARKERS, strict=True):
            x, y = zip((1.0, whole), *((row["flops"], row["loss"]) for row in own if row["way"] == way), strict=True)
            look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.4}
            axes.plot(x, [min(loss, MOST) for loss in y], label=label, **look)
        axes.axhline(whole, color=INK, linewidth=1, linestyle=(0, (5, 3)), alpha=0.7)
        axes.set_title(name, fontsize=10)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.invert_xaxis()
        axes.set_xlabel("FLOPs of an update")
    figure.axes[0].set_ylabel(f"loss of plain sentences (at most {MOST:g})")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return text_of(figure, "parts")
