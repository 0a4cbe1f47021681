"""What runs came to, for people: one run, a prompt's scores, several runs."""

from typing import Any

from fpt.cli.tables import Output, say_share, table
from fpt.runs.run import layers_and_neurons
from fpt.units import amount

UNSCORED = "without labels, so not scored"


def print_result(result: dict[str, Any], folder: str) -> None:
    """What each stage did, and the final score beside the baselines."""
    output, metric, data, best = Output(), result["metric"], result["data"], result["best_update"]
    output.say(
        f"{result['task']} ({data['origin']}, {data['train']:,} training and {data['validation']:,} validation"
        f" examples) on {result['model']}, schedule {result['schedule']}, seed {result['seed']}"
    )
    rows = table("stage", "layers enc+dec", "FFN enc/dec", "updates", "FLOPs", "seconds", f"{metric['name']} *")
    for number, row in enumerate(result["stages"], 1):
        score = "–" if row["score"] is None else f"{row['score']:.2f}"
        done = f"{row['updates']:,}", amount(row["flops"]), f"{row['seconds']:.1f}", score
        rows.add_row(str(number), *layers_and_neurons(row), *done)
    output.print(rows)
    hint = "; –: only with train.eval_partial=true" if any(row["score"] is None for row in result["stages"]) else ""
    output.say(f"* at the stage's end, on the stage's own model{hint}", "dim")
    others = {
        "last prompt": metric.get("last"),
        result["baseline"]: result["majority"],
        "untrained prompt": result["untrained"],
    }
    beside = ", ".join(f"{name} {value:.2f}" for name, value in others.items() if value is not None)
    output.say(f"{metric['name']} {metric['value']:.2f} with the prompt of update {best:,}  ({beside})", "bold")
    say_share(output, result)
    if test := result["test"]:
        score = f"{metric['name']} {test['metrics'][metric['name']]:.2f}" if test["metrics"] else UNSCORED
        output.say(f"{test['split']} split, {test['examples']:,} examples: {score}")
    learned = f"{result['trainable_parameters']:,} trainable parameters; " if "trainable_parameters" in result else ""
    output.say(f"{learned}prompt and records in {folder}")


def print_scores(scored: dict[str, Any]) -> None:
    """What a prompt scores on a split."""
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


def print_comparison(kind: str, compared: dict[str, Any]) -> None:
    """A row for each schedule, or kind of prompt: mean and deviation over the seeds."""
    output, seeds = Output(), ", ".join(map(str, compared["seeds"]))
    baseline = f"{compared['baseline']} {compared['majority']:.2f}"
    output.say(f"{compared['task']} on {compared['model']}, seeds {seeds}; {baseline}")
    variants = compared[f"{kind}s"]
    cells = [_costs(row, compared) if kind == "prompt" else _gains(row, compared) for row in variants]
    rows = table(kind, *cells[0], words=kind)
    for row, values in zip(variants, cells, strict=True):
        rows.add_row(row[kind], *values.values())
    output.print(rows)
    if kind == "prompt":
        output.say("* planned, of the largest stage on one device; ** of updates alone", "dim")
        output.say(f"FLOPs and time are shares of {variants[0][kind]}'s", "dim")
        return
    output.say(
        f"* share of vanilla prompt tuning's FLOPs until validations have its last ones' {compared['vanilla']:.2f} for"
        " good; FLOPs, time and what a score is at are shares of its too",
        "dim",
    )
    output.say("** over the best of its validations (train.eval_every) with no more FLOPs; – before its first", "dim")


def _scores(row: dict[str, Any], compared: dict[str, Any]) -> dict[str, str]:
    names = {"score": compared["metric"], "test": "test split", "last": "last prompt"}
    scores = {name: _spread(row[key], ".2f") for key, name in names.items() if row[key] or key != "test"}
    return {**scores, "FLOPs": f"{row['flops_ratio']:.1%}", "time": f"{row['seconds_ratio']:.1%}"}


def _gains(row: dict[str, Any], compared: dict[str, Any]) -> dict[str, str]:
    at = {f"at {float(share):.0%}": "–" if it is None else f"{it:.2f}" for share, it in row["score_at"].items()}
    gain = {"gain **": _spread(row["gain"], "+.2f")}
    return {"to vanilla's score *": _to_vanilla(row), **_scores(row, compared), **at, **gain}


def _costs(row: dict[str, Any], compared: dict[str, Any]) -> dict[str, str]:
    costs = f"{row['trainable_parameters']:,}", f"{amount(row['memory'])}B", f"{row['examples_per_second']:.2f}"
    return {**_scores(row, compared), **dict(zip(("parameters", "memory *", "examples/s **"), costs, strict=True))}


def _to_vanilla(row: dict[str, Any]) -> str:
    """The mean over the seeds that got there, and how many did where some did not."""
    reached, all_of_them = row["reached_vanilla"], len(row["runs"])
    if not reached:
        return "never"
    return _spread(row["flops_to_vanilla"], ".1%") + (f" ({reached} of {all_of_them})" if reached < all_of_them else "")


def _spread(values: dict[str, float | None] | None, form: str) -> str:
    if values is None:
        return "–"
    deviation = "" if values["deviation"] is None else f" ± {values['deviation']:{form.lstrip('+')}}"
    return f"{values['mean']:{form}}{deviation}"


def print_sweep(rows: list[dict[str, Any]]) -> None:
    """A row for each run: its values, then what it came to."""
    runs = table(*rows[0]["values"], "metric", "score", "FLOPs", "seconds", "folder", words="folder")
    for row in rows:
        outcome = ("failed", "–", "–", "–")
        if row["error"] is None:
            metric = row["metric"]
            outcome = metric["name"], f"{metric['value']:.2f}", amount(row["flops"]), f"{row['seconds']:.1f}"
        runs.add_row(*row["values"].values(), *outcome, row["folder"])
    Output(width=1000).print(runs)  # a folder's name is of use only whole
