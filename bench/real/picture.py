"""The README's picture: `python -m bench.real.picture > docs/real-models.svg` draws score against FLOPs and seconds.

A line is the mean over tasks and seeds that every line has, of runs that were alone on the machine. FLOPs and seconds
are shares of vanilla prompt tuning's.
"""

import argparse
from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.real import runs
from bench.real.__main__ import UPDATES
from bench.real.arms import ARMS, PEFT, VANILLA
from bench.real.runs import Row
from bench.real.tables import Look, Pair, looks, of_model
from bench.svg import text_of
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
    """An arm's line, a point for each validation: share of vanilla's FLOPs or seconds, and score; means over runs."""

    def share(look: Look, pair: Pair) -> float:
        whole: float = getattr(looks(vanilla[pair])[-1], spent)
        return float(getattr(look, spent)) / whole

    by_look = zip(*([(share(look, pair), look.score) for look in looks(of_arm[pair])] for pair in pairs), strict=True)
    return [(fmean(x for x, _ in points), fmean(y for _, y in points)) for points in by_look]


@STYLED
def drawn(by_arm: Mapping[str, Mapping[Pair, Row]]) -> str:
    """Draw each arm's score against what it took, as SVG."""
    alone = [{pair for pair, row in rows.items() if not row.get("busy")} for rows in by_arm.values()]
    pairs = [pair for pair in by_arm[VANILLA] if all(pair in each for each in alone)]
    figure = Figure(figsize=(8.4, 3.3), layout="constrained")
    for axes, (spent, label) in zip(figure.subplots(1, 2, sharey=True), SPENT.items(), strict=True):
        for number, (arm, rows) in enumerate(by_arm.items()):
            if spent == "cpu" or arm != PEFT:
                points = curve(rows, by_arm[VANILLA], pairs, spent)
                dashes, colour = divmod(number, len(COLOURS))
                look = {"color": COLOURS[colour], "linestyle": "--" if dashes else "-", "linewidth": 1.8}
                axes.plot(*zip(*points, strict=True), **look, label=LABELS.get(arm, arm))
        _named(axes, label)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    figure.axes[0].set_ylabel(f"accuracy, mean of {len(pairs)} run{'s' * (len(pairs) > 1)}")
    return text_of(figure, "picture")


def _named(axes: Axes, spent: str) -> None:
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"{spent}, of vanilla prompt tuning's")


def main() -> None:
    """Print the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.real.picture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--only", nargs="+", default=[VANILLA, PEFT, "suffix"], choices=list(ARMS), help="arms")
    options = parser.parse_args()
    print(drawn(of_model(runs.kept(), options.model, options.updates, options.only)), end="")


if __name__ == "__main__":
    main()
