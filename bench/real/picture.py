"""The README's picture: `python -m bench.real.picture > docs/real-models.svg` draws score against FLOPs and seconds.

A line is the mean over the tasks and seeds that every line beside it has. FLOPs and seconds are shares of vanilla
prompt tuning's; seconds are of runs that were alone on the machine.
"""

import argparse
from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from bench.real import runs
from bench.real.arms import PEFT, VANILLA
from bench.real.runs import Row
from bench.real.tables import Look, Pair, looks, of_model
from bench.svg import text_of
from fpt.report.plots import COLOURS, STYLED

LABELS = {
    VANILLA: "vanilla prompt tuning",
    PEFT: "PEFT in transformers' Trainer",
    "suffix": "prompt behind the source",
    "late": "late prompt",
    "cr": "published schedule (CR)",
}
PANELS = {  # what is spent, how it is called, and the arms that are drawn
    "flops": ("training FLOPs", (VANILLA, "suffix", "late", "cr")),
    "cpu": ("seconds from the command on", (VANILLA, "suffix", PEFT)),
}


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
    figure = Figure(figsize=(8.4, 3.7), layout="constrained")
    for axes, (spent, (name, arms)) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
        shown = {arm: by_arm[arm] for arm in arms if arm in by_arm}
        timed = [
            {pair for pair, row in of_arm.items() if spent != "cpu" or not row.get("busy")} for of_arm in shown.values()
        ]
        pairs = [pair for pair in by_arm[VANILLA] if all(pair in each for each in timed)]
        for arm, of_arm in shown.items():
            points = curve(of_arm, by_arm[VANILLA], pairs, spent)
            colour = COLOURS[list(LABELS).index(arm)]
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, label=LABELS[arm])
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel(f"{name}, of vanilla prompt tuning's")
        axes.set_title(f"mean of {len(pairs)} runs", fontsize=9)
        axes.legend(loc="lower right", fontsize=8, frameon=False)
    figure.axes[0].set_ylabel("accuracy, validation")
    return text_of(figure, "picture")


def main() -> None:
    """Print the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.real.picture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    options = parser.parse_args()
    print(drawn(of_model(runs.kept(), options.model)), end="")


if __name__ == "__main__":
    main()
