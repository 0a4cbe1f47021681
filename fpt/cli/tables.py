"""Plans and results as tables for people."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fpt.units import amount


def print_plan(plan: dict[str, Any]) -> None:
    """Every stage's shape, size and price, and the sum against vanilla prompt tuning."""
    console = _output()
    table = _table(
        "stage", "layers enc+dec", "FFN enc/dec", "updates", "parameters", "weights", "FLOPs/update", "FLOPs", "of full"
    )
    for number, row in enumerate(plan["stages"], 1):
        table.add_row(
            str(number),
            *_sizes(row),
            f"{row['updates']:,}",
            amount(row["parameters"]),
            f"{amount(row['weight_bytes'])}B",
            amount(row["flops_per_update"]),
            amount(row["flops"]),
            f"{row['flops_ratio']:.1%}",
        )
    console.print(
        Text(
            f"{plan['task']} on {plan['model']}, schedule {plan['schedule']}: {plan['updates']:,} updates of"
            f" {plan['batch_size']} examples, {plan['source_length']} source tokens, prompt included,"
            f" and {plan['target_length']} target tokens"
        )
    )
    console.print(table)
    console.print(_share(plan))
    console.print(Text(f"{plan['trainable_parameters']:,} trainable parameters"))
    if plan["states"]:
        _print_states(console, plan["states"], [row["flops_states"] for row in plan["stages"]])
    _print_memory(console, plan["memory"])


def _print_states(console: Console, states: dict[str, Any], flops: list[int]) -> None:
    """Whether the states below a late prompt are kept, and what every stage does about them."""
    console.print()
    console.print(Text(states["told"]))
    if states["where"] == "off":
        return
    table = _table("stage", "blocks below", "their states are", "FLOPs")
    does = {"compute": "computed", "reuse": "those of the stage before", "off": "not kept"}
    for number, (row, cost) in enumerate(zip(states["stages"], flops, strict=True), 1):
        anew = " anew" if number > 1 and row["does"] == "compute" else ""
        table.add_row(str(number), str(row["blocks"]), does[row["does"]] + anew, amount(cost))
    console.print(table)


def _print_memory(console: Console, memory: dict[str, Any]) -> None:
    """What every stage takes on one device, and what would make the largest fit."""
    checkpointing = "on" if memory["activation_checkpointing"] else "off"
    processes = f"{memory['processes']} process{'es' if memory['processes'] > 1 else ''}"
    console.print()
    console.print(
        Text(
            f"memory of one device, engine {memory['engine']}, {processes},"
            f" {memory['micro_batch']} examples at once, activation checkpointing {checkpointing}"
        )
    )
    table = _table("stage", "weights", "activations", "checkpointed", "rest", "total", "fits")
    for number, row in enumerate(memory["stages"], 1):
        sizes = (row[key] for key in ("weights", "activations", "activations_checkpointed", "rest", "total"))
        table.add_row(str(number), *(f"{amount(size)}B" for size in sizes), "yes" if row["fits"] else "no")
    console.print(table)
    has = f"{amount(memory['device_memory'])}B of memory, a tenth of it left free"
    if memory["fits"]:
        verdict = f"every stage fits into {has}"
    elif memory["advice"] is None:
        verdict = f"the largest stage does not fit into {has}, whatever the settings; take a smaller model"
    else:
        verdict = f"the largest stage does not fit into {has}; it takes {amount(memory['advised_bytes'])}B with\n  "
        verdict += " ".join(memory["advice"])
    console.print(Text(verdict, style="bold"))


def print_result(result: dict[str, Any], folder: str) -> None:
    """What each stage did, and the final score beside the baselines."""
    console = _output()
    metric = result["metric"]
    table = _table("stage", "layers enc+dec", "FFN enc/dec", "updates", "FLOPs", "seconds", f"{metric['name']} *")
    for number, row in enumerate(result["stages"], 1):
        table.add_row(
            str(number),
            *_sizes(row),
            f"{row['updates']:,}",
            amount(row["flops"]),
            f"{row['seconds']:.1f}",
            f"{row['score']:.2f}",
        )
    data = result["data"]
    console.print(
        Text(
            f"{result['task']} ({data['origin']}, {data['train']:,} training and {data['validation']:,} validation"
            f" examples) on {result['model']}, schedule {result['schedule']}, seed {result['seed']}"
        )
    )
    console.print(table)
    console.print(Text("* at the stage's end, on the stage's own model", style="dim"))
    others = {result["baseline"]: result["majority"], "untrained prompt": result["untrained"]}
    beside = ", ".join(f"{name} {value:.2f}" for name, value in others.items() if value is not None)
    console.print(Text(f"{metric['name']} {metric['value']:.2f}  ({beside})", style="bold"))
    console.print(_share(result))
    if test := result["test"]:
        console.print(Text(_tested(test, metric["name"])))
    learned = f"{result['trainable_parameters']:,} trainable parameters; " if "trainable_parameters" in result else ""
    console.print(Text(f"{learned}prompt and records in {folder}"))


def _tested(test: dict[str, Any], metric: str) -> str:
    score = f"{metric} {test['metrics'][metric]:.2f}" if test["metrics"] else "without labels, so not scored"
    return f"{test['split']} split, {test['examples']:,} examples: {score}"


def print_scores(about: dict[str, Any]) -> None:
    """What a prompt scores on a split."""
    console = _output()
    console.print(Text(f"{about['task']} ({about['origin']}), {about['split']} split, {about['examples']:,} examples"))
    console.print(Text(f"{about['prompt']} on {about['model']}"))
    if about["metrics"] is None:
        console.print(Text("without labels, so not scored", style="bold"))
    else:
        beside = "" if about["majority"] is None else f"  ({about['baseline']} {about['majority']:.2f})"
        main = about["metrics"][about["metric"]]
        console.print(Text(f"{about['metric']} {main:.2f}{beside}", style="bold"))
        for name, value in about["metrics"].items():
            if name != about["metric"]:
                console.print(Text(f"{name} {value:.2f}"))
    console.print(Text(f"predictions in {about['predictions']}"))


def print_look(look: dict[str, Any]) -> None:
    """A task's splits in numbers, then examples as the model sees them."""
    console, splits, limits = _output(), look["splits"], look["limits"]
    baseline = f"{look['baseline']['name']} scores {look['baseline']['score']:.2f}"
    console.print(
        Text(
            f"{look['task']} ({look['origin']}), in tokens of {look['model']}; main metric {look['metric']}, {baseline}"
        )
    )
    for note in look["notes"]:
        console.print(Text(note))
    table = _table("split", "examples", *(f"'{label}'" for label in look["labels"]))
    for split in splits:
        shares = (f"{count:,} ({count / split['examples']:.1%})" for count in (split["labels"] or {}).values())
        table.add_row(split["name"], f"{split['examples']:,}", *shares)
    with_answers = [] if look["labels"] else ["answers lost"]
    lengths = _table("tokens of", "limit", *splits[0]["source_tokens"], "cut", *with_answers)
    for split in splits:
        for side in ("source", "target") if split["target_tokens"] else ("source",):
            numbers = (f"{number:,}" for number in split[f"{side}_tokens"].values())
            cut = split[f"cut_{side}s"]
            lost = [f"{split['lost_answers']:,}" if side == "source" else ""] if with_answers else []
            share = f"{cut:,} ({cut / split['examples']:.1%})"
            lengths.add_row(f"{split['name']} {side}s", f"{limits[side]:,}", *numbers, share, *lost)
    for made in (table, lengths):
        made.columns[0].justify = "left"
        console.print()
        console.print(made)
    for example in look["examples"]:
        _print_example(console, example)


def _print_example(console: Console, example: dict[str, Any]) -> None:
    """An example's texts and tokens, a row each."""
    cut = f" ({example['cut']:,} more cut)" if example["cut"] else ""
    lengths = f"{len(example['source_tokens']):,} source tokens{cut}, {len(example['target_tokens']):,} target tokens"
    console.print()
    console.print(Text(f"{example['id']}: {lengths}", style="bold"))
    rows = Table.grid(padding=(0, 2))
    for name, content in (
        ("source", Text(example["source"])),
        ("tokens", _tokens(example["source_tokens"])),
        ("target", Text(example["target"])),
        ("tokens", _tokens(example["target_tokens"])),
        ("gold", Text(" | ".join(gold or "∅" for gold in example["golds"]))),
    ):
        rows.add_row(name, content)
    console.print(rows)


def _tokens(tokens: list[str]) -> Text:
    """Tokens apart from each other, the middle of many left out."""
    most = 80
    if len(tokens) > most:
        left_out = f"… {len(tokens) - most:,} tokens …"
        tokens = [*tokens[: most - 20], left_out, *tokens[-20:]]
    return Text(" ".join(tokens), style="cyan")


def print_comparison(compared: dict[str, Any]) -> None:
    """A row for each schedule: mean and deviation over the seeds."""
    console = _output()
    table = _table("schedule", f"{compared['metric']}", "FLOPs", "wall clock", "gain at equal FLOPs *")
    table.columns[0].justify = "left"
    for row in compared["schedules"]:
        gain = _spread(row["gain"], "+.2f") if row["gain"] else "–"
        ratios = f"{row['flops_ratio']:.1%}", f"{row['seconds_ratio']:.1%}"
        table.add_row(row["schedule"], _spread(row["score"], ".2f"), *ratios, gain)
    seeds = ", ".join(map(str, compared["seeds"]))
    baseline = f"{compared['baseline']} {compared['majority']:.2f}"
    console.print(Text(f"{compared['task']} on {compared['model']}, seeds {seeds}; {baseline}"))
    console.print(table)
    console.print(
        Text(
            "* over the best of vanilla prompt tuning's validations (train.eval_every) with no more FLOPs;"
            " – before its first",
            style="dim",
        )
    )


def _spread(values: dict[str, float | None], form: str) -> str:
    deviation = "" if values["deviation"] is None else f" ± {values['deviation']:.2f}"
    return f"{values['mean']:{form}}{deviation}"


def print_sweep(rows: list[dict[str, Any]]) -> None:
    """A row for each run: its values, then what it came to."""
    console = _output()
    if not console.is_terminal:
        console.width = 1000  # a folder's name is of use only whole
    table = _table(*rows[0]["values"], "metric", "score", "FLOPs", "seconds", "folder")
    for row in rows:
        found = ("failed", "–", "–", "–")
        if row["error"] is None:
            metric = row["metric"]
            found = metric["name"], f"{metric['value']:.2f}", amount(row["flops"]), f"{row['seconds']:.1f}"
        table.add_row(*row["values"].values(), *found, row["folder"])
    table.columns[-1].justify = "left"
    console.print(table)


def print_report(report: dict[str, Any]) -> None:
    """What `fpt doctor` found, a line for each thing."""
    console, rows = _output(), Table.grid(padding=(0, 2))
    for part, values in report.items():
        if isinstance(values, dict):
            for name, value in values.items():
                rows.add_row(part.replace("_", " "), name.replace("_", " "), _told(name, value))
    console.print(rows)
    verdict = "; ".join(report["problems"]) or "nothing is broken"
    console.print(Text(verdict, style="bold"))


def _told(name: str, value: Any) -> str:
    """One finding in a few words."""
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_told(key, inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(_told(name, inner) for inner in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{amount(value)}B" if name in ("memory", "memory_available", "free") else str(value)


def _share(values: dict[str, Any]) -> Text:
    scoring = values["flops_importance"] / values["flops"]
    note = f"; {scoring:.1%} of them went into scoring neurons" if scoring else ""
    spent, vanilla = amount(values["flops"]), amount(values["flops_pt"])
    return Text(
        f"{spent}FLOPs, {values['flops_ratio']:.1%} of vanilla prompt tuning's {vanilla}FLOPs{note}", style="bold"
    )


def _sizes(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['encoder_layers']}+{row['decoder_layers']}", f"{row['ffn']}/{row['decoder_ffn']}"


class _Output(Console):
    """Standard output that leaves a closed pipe to the door; rich would end the program with status 1."""

    def on_broken_pipe(self) -> None:
        """Let the error through."""
        raise


def _output() -> Console:
    """Standard output; a pipe or a file has no width to fit into."""
    console = _Output(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 120
    return console


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right")
    return table
