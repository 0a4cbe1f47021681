"""The picture of docs/results.md, score against FLOPs: `python -m bench.picture > docs/score-against-flops.svg`.

The runs are those of bench.rows that are kept in bench/results; this trains nothing. A line is the mean over the
seeds, each in a land of its own, in a band from the least to the most.
"""

from io import BytesIO
from statistics import fmean

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from bench import rows
from bench.rows import COMPARED, RECORDS, SCHEDULES
from fpt.report.plots import COLOURS, INK, STYLED
from fpt.units import amount

ROWS = {"pt": "vanilla prompt tuning", "cr": "fast prompt tuning, CR", "cr from half": "CR that begins at half"}
SEEDS = range(len(rows.LANDS))


@STYLED
def drawn() -> str:
    """The picture as SVG."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for (row, label), colour in zip(ROWS.items(), COLOURS, strict=False):
        seeds = rows.made(COMPARED, row, SEEDS)
        names = [rows.name(COMPARED, row, seed) for seed in seeds]
        curves = [RECORDS.curve(name) for name in names]
        points = [list(zip(*looks, strict=True)) for looks in zip(*curves, strict=True)]
        flops, scores = zip(*points, strict=True)
        x = [fmean(values) for values in flops]
        axes.plot(
            x, [fmean(values) for values in scores], color=colour, linewidth=1.8, label=f"{label}, {len(seeds)} runs"
        )
        axes.fill_between(x, list(map(min, scores)), list(map(max, scores)), color=colour, alpha=0.14, linewidth=0)
    record = RECORDS[rows.name(COMPARED, "pt", 0)]
    axes.axhline(record["majority"], color=INK, linewidth=1, linestyle=(0, (5, 3)), alpha=0.7)
    where = axes.get_yaxis_transform()
    text = f"{record['baseline']} {record['majority']:.0f}"
    axes.annotate(text, (1, record["majority"]), (0, 3), where, "offset points", ha="right", fontsize=8)
    axes.set_xlim(left=0)
    axes.set_xticks(np.arange(0, 8e12, 1e12))
    axes.xaxis.set_major_formatter(lambda value, _: amount(value) if value else "0")
    axes.set_xlabel("training FLOPs, the smaller models' before a line begins included")
    axes.set_ylabel("accuracy on the full model")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.13), fontsize=8, frameon=False)
    stream = BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "picture"}):
        figure.savefig(stream, format="svg", facecolor="white", metadata=metadata)
    return stream.getvalue().decode()


def main() -> None:
    """Print it."""
    assert COMPARED in rows.CLIMBING
    assert set(ROWS) <= {"pt", *SCHEDULES}
    print(drawn(), end="")


if __name__ == "__main__":
    main()
