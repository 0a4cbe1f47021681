"""The README's picture: `python -m bench.real.picture > docs/real-models.svg` draws score against FLOPs and seconds.

A line is the mean over tasks and seeds that every line has; FLOPs and seconds are shares of vanilla prompt tuning's.
"""

import argparse
from collections.abc import Mapping, Sequence
from io import BytesIO
from statistics import fmean

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.real import runs
from bench.real.__main__ import UPDATES
from bench.real.arms import PEFT, VANILLA
from bench.real.runs import Row
from bench.real.tables import Look, Pair, looks, of_model
from fpt.report.plots import COLOURS, STYLED

LABELS = {
    VANILLA: "vanilla prompt tuning",
    PEFT: "PEFT in transformers' Trainer",
    "suffix": "prompt behind the source",
    "late": "late prompt",
}
SPENT = {"flops": "training FLOPs", "cpu": "seconds from the command on"}


def curve(
    of_arm: Mapping[Pair, Row], vanilla: Mapping[Pair, Row], pairs: Sequence[Pair], spent: str
) -> list[tuple[float, float]]:
    """Share of vanilla's FLOPs or seconds, and score, at each validation; the mean over runs."""

    def share(look: Look, pair: Pair) -> float:
        whole: float = getattr(looks(vanilla[pair])[-1], spent)
        return float(getattr(look, spent)) / whole

    by_look = zip(*([(share(look, pair), look.score) for look in looks(of_arm[pair])] for pair in pairs), strict=True)
    return [(fmean(x for x, _ in points), fmean(y for _, y in points)) for points in by_look]


@STYLED
def drawn(by_arm: Mapping[str, Mapping[Pair, Row]]) -> str:
    """The picture as SVG."""
    tasks = {task for task, _ in by_arm[VANILLA]}
    shown = {arm: rows for arm, rows in by_arm.items() if tasks <= {task for task, _ in rows}}
    pairs = [pair for pair in by_arm[VANILLA] if all(pair in rows for rows in shown.values())]
    figure = Figure(figsize=(8.4, 3.3), layout="constrained")
    for axes, (spent, label) in zip(figure.subplots(1, 2, sharey=True), SPENT.items(), strict=True):
        for (arm, rows), colour in zip(shown.items(), COLOURS, strict=False):
            if spent == "cpu" or arm != PEFT:
                points = curve(rows, by_arm[VANILLA], pairs, spent)
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, label=LABELS.get(arm, arm))
        _named(axes, label)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    figure.axes[0].set_ylabel(f"accuracy, mean of {len(pairs)} run{'s' * (len(pairs) > 1)}")
    stream = BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "picture"}):
        figure.savefig(stream, format="svg", facecolor="white", metadata=metadata)
    return stream.getvalue().decode()


def _named(axes: Axes, spent: str) -> None:
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"{spent}, of vanilla prompt tuning's")


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.real.picture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--updates", type=int, default=UPDATES)
    options = parser.parse_args()
    print(drawn(of_model(runs.kept(), options.model, options.updates)), end="")


if __name__ == "__main__":
    main()
