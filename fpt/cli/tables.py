"""Prints results on standard output, as JSON or as tables: of a run, of a prompt on a split, of several runs."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fpt.cli.arguments import Arguments
from fpt.units import amount

UNSCORED = "without labels, so not scored"


def present(arguments: Arguments, value: Any, for_people: Callable[[Any], object]) -> None:
    """Print a result as JSON if --json is given, otherwise for people."""
    if "json" in arguments.options:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        for_people(value)


class Output(Console):
    """Standard output, on which a closed pipe raises its error; rich would end the program with status 1."""

    def __init__(self, *, width: int = 120) -> None:
        """Open standard output; `width` is used for pipes and files, which have none of their own."""
        super().__init__(highlight=False, markup=False, emoji=False, soft_wrap=True)
        if not self.is_terminal:
            self.width = width

    def on_broken_pipe(self) -> None:
        """Raise the error, which the command's caller handles."""
        raise

    def say(self, text: str = "", style: str = "") -> None:
        """Print text as it is."""
        self.print(Text(text, style=style))

    def show(self, rows: Iterable[dict[str, str]], *, words: str = "") -> None:
        """Print a table with a column for each key; all are aligned right as numbers, except the column `words`."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for row in rows:
            for column in row if not table.columns else ():
                table.add_column(column, justify="left" if column == words else "right")
            table.add_row(*row.values())
        self.print(table)


def stage_cells(number: int, stage: dict[str, Any]) -> dict[str, str]:
    """The first columns of a stage's row: its number, layers, FFN widths (one each for a single stack) and updates."""
    blocks = [str(stage[f"{name}_layers"]) for name in ("encoder", "decoder") if stage[f"{name}_layers"]]
    layers, neurons = "+".join(blocks), "/".join(str(stage[name]) for name in ("ffn", "decoder_ffn")[: len(blocks)])
    return {"stage": str(number), "layers enc+dec": layers, "FFN enc/dec": neurons, "updates": f"{stage['updates']:,}"}


def in_bytes(number: float) -> str:
    """Format a number of bytes, as in 1.5 GB."""
    return f"{amount(number)}B"


def say_share(output: Output, values: dict[str, Any]) -> None:
    """Print FLOPs, also as a share of those of vanilla prompt tuning with a soft prompt of the same length."""
    scoring = values["flops_importance"] / values["flops"]
    note = f"; {scoring:.1%} of them went into scoring neurons" if scoring else ""
    spent, share, vanilla = amount(values["flops"]), values["flops_ratio"], amount(values["flops_pt"])
    of = f"of vanilla prompt tuning's {vanilla}FLOPs ({values['vectors_pt']} vectors)"
    output.say(f"{spent}FLOPs, {share:.1%} {of}{note}", "bold")


def print_result(result: dict[str, Any], folder: str) -> None:
    """Print what each stage did, and the final score next to the baselines."""
    output, metric, data, best = Output(), result["metric"], result["data"], result["best_update"]
    output.say(
        f"{result['task']} ({data['origin']}, {data['train']:,} training and {data['validation']:,} validation"
        f" examples) on {result['model']}, schedule {result['schedule']}, seed {result['seed']}"
    )
    output.show(
        {
            **stage_cells(number, stage),
            "FLOPs": amount(stage["flops"]),
            "seconds": f"{stage['seconds']:.1f}",
            f"{metric['name']} *": _or_dash(stage["score"]),
        }
        for number, stage in enumerate(result["stages"], 1)
    )
    hint = "; –: only with train.eval_partial=true" if any(row["score"] is None for row in result["stages"]) else ""
    output.say(f"* at the stage's end, on the stage's own model{hint}", "dim")
    others = {
        "last prompt": metric.get("last"),
        result["baseline"]: result["majority"],
        "untrained prompt": result["untrained"],
    }
    beside = ", ".join(f"{name} {value:.2f}" for name, value in others.items() if value is not None)
    output.say(f"{metric['name']} {metric['value']:.2f} with the prompt of update {best:,}  ({beside})", "bold")
    if metric["name"] == "gain":
        scores = [(*key.rpartition(".")[::2], value) for key, value in result["metrics"].items() if "." in key]
        rows = ({"task": task, "score": name, "": f"{value:.2f}"} for task, name, value in scores)
        output.show(rows, words="task")
    say_share(output, result)
    if result.get("ended") == "time":
        output.say(f"train.max_seconds ended it: {result['updates']:,} updates in {result['seconds']:.1f} seconds")
    if test := result["test"]:
        score = f"{metric['name']} {test['metrics'][metric['name']]:.2f}" if test["metrics"] else UNSCORED
        output.say(f"{test['split']} split, {test['examples']:,} examples: {score}")
    output.say(f"{result['trainable_parameters']:,} trainable parameters; prompt and records in {folder}")


def print_scores(scored: dict[str, Any]) -> None:
    """Print a prompt's scores on a split."""
    output, metrics, main = Output(), scored["metrics"], scored["metric"]
    output.say(f"{scored['task']} ({scored['origin']}), {scored['split']} split, {scored['examples']:,} examples")
    output.say(f"{scored['prompt']} on {scored['model']}")
    if metrics is None:
        output.say(UNSCORED, "bold")
    else:
        beside = "" if scored["majority"] is None else f"  ({scored['baseline']} {scored['majority']:.2f})"
        output.say(f"{main} {metrics[main]:.2f}{beside}", "bold")
    for name, value in (metrics or {}).items():
        if name != main:
            output.say(f"{name} {value:.2f}")
    output.say(f"predictions in {scored['predictions']}")


def print_comparison(compared: dict[str, Any]) -> None:
    """Print a row for each schedule: mean and deviation over the seeds."""
    output, seeds = Output(), ", ".join(map(str, compared["seeds"]))
    baseline = f"{compared['baseline']} {compared['majority']:.2f}"
    output.say(f"{compared['task']} on {compared['model']}, seeds {seeds}; {baseline}")
    output.show((_compared(row, compared["metric"]) for row in compared["schedules"]), words="schedule")
    output.say(
        f"* FLOPs until validations reach and hold vanilla prompt tuning's last score, {compared['vanilla']:.2f}."
        " They, FLOPs and time are shares of vanilla's",
        "dim",
    )
    output.say(
        "** score above vanilla's best validation with no more FLOPs; –: there is none yet (train.eval_every)", "dim"
    )


def _compared(row: dict[str, Any], metric: str) -> dict[str, str]:
    reached, runs = row["reached_vanilla"], len(row["runs"])
    some = f" ({reached} of {runs})" if 0 < reached < runs else ""
    scores = {"score": metric, "test": "test split", "last": "last prompt"}
    return {
        "schedule": row["schedule"],
        "to vanilla's score *": (_spread(row["flops_to_vanilla"], ".1%") if reached else "never") + some,
        **{name: _spread(row[key]) for key, name in scores.items() if row[key] or key != "test"},
        "FLOPs": f"{row['flops_ratio']:.1%}",
        "time": f"{row['seconds_ratio']:.1%}",
        "gain **": _spread(row["gain"], "+.2f"),
    }


def _spread(values: dict[str, float | None] | None, form: str = ".2f") -> str:
    if values is None:
        return "–"
    deviation = "" if values["deviation"] is None else f" ± {values['deviation']:{form.lstrip('+')}}"
    return _or_dash(values["mean"], form) + deviation


def _or_dash(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else f"{value:{form}}"


def print_sweep(rows: list[dict[str, Any]]) -> None:
    """Print a row for each run of a sweep: the values swept, then its result."""
    cells = []
    for row in rows:
        outcome = ("failed", "–", "–", "–")
        if row["error"] is None:
            metric = row["metric"]
            outcome = metric["name"], f"{metric['value']:.2f}", amount(row["flops"]), f"{row['seconds']:.1f}"
        named = dict(zip(("metric", "score", "FLOPs", "seconds"), outcome, strict=True))
        cells.append({**row["values"], **named, "folder": row["folder"]})
    Output(width=1000).show(cells, words="folder")  # wide, because a folder's name that is cut is useless
