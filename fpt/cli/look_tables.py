"""What is there, for people: a run's price, a task's data as the model sees them, this machine."""

from typing import Any

from rich.table import Table
from rich.text import Text

from fpt.cli.tables import Output, say_share, table
from fpt.runs.run import layers_and_neurons
from fpt.units import amount

MOST = 80  # tokens of a text that are shown
LAST = 20  # of them, from its end
UNKNOWN = 8  # characters that are named
DOES = {"compute": "computed", "reuse": "those of the stage before", "off": "not kept"}


def print_plan(plan: dict[str, Any]) -> None:
    """Every stage's shape, size and price, and the sum against vanilla prompt tuning."""
    output = Output()
    output.say(
        f"{plan['task']} on {plan['model']}, schedule {plan['schedule']}: {plan['updates']:,} updates of"
        f" {plan['batch_size']} examples, {plan['source_length']} source tokens, prompt included,"
        f" and {plan['target_length']} target tokens"
    )
    rows = table(
        "stage", "layers enc+dec", "FFN enc/dec", "updates", "parameters", "weights", "FLOPs/update", "FLOPs", "of full"
    )
    for number, row in enumerate(plan["stages"], 1):
        rows.add_row(
            str(number),
            *layers_and_neurons(row),
            f"{row['updates']:,}",
            amount(row["parameters"]),
            f"{amount(row['weight_bytes'])}B",
            amount(row["flops_per_update"]),
            amount(row["flops"]),
            f"{row['flops_ratio']:.1%}",
        )
    output.print(rows)
    say_share(output, plan)
    output.say(f"{plan['trainable_parameters']:,} trainable parameters")
    if validation := plan["validation"]:
        output.say(
            f"validation: {validation['times']:,} times in training, {validation['examples']:,} outputs in all,"
            f" {amount(validation['flops'])}FLOPs; about {validation['share']:.0%} of the time"
        )
    if plan["states"]:
        _print_states(output, plan["states"], plan["stages"])
    _print_memory(output, plan)


def _print_states(output: Output, states: dict[str, Any], stages: list[dict[str, Any]]) -> None:
    """Whether the states below a late prompt are kept, and what every stage does about them."""
    output.say()
    output.say(states["sentence"])
    if states["where"] == "off":
        return
    rows = table("stage", "blocks below", "their states are", "FLOPs")
    for number, (row, does) in enumerate(zip(stages, states["stages"], strict=True), 1):
        anew = " anew" if number > 1 and does == "compute" else ""
        rows.add_row(str(number), str(row["blocks_below"]), DOES[does] + anew, amount(row["flops_states"]))
    output.print(rows)


def _print_memory(output: Output, plan: dict[str, Any]) -> None:
    """What every stage takes on one device, and what would make the largest fit."""
    checkpointing = "on" if plan["activation_checkpointing"] else "off"
    processes = f"{plan['processes']} process{'es' if plan['processes'] > 1 else ''}"
    output.say()
    packed = "" if plan["quantize"] == "none" else f" weights packed as {plan['quantize']},"
    output.say(
        f"memory of one device, engine {plan['engine']}, {processes},{packed}"
        f" {plan['micro_batch']} examples at once, activation checkpointing {checkpointing}"
    )
    rows = table("stage", "weights", "activations", "checkpointed", "rest", "total", "fits")
    for number, row in enumerate(plan["stages"], 1):
        sizes = (row[key] for key in ("weights", "activations", "activations_checkpointed", "rest", "total"))
        rows.add_row(str(number), *(f"{amount(size)}B" for size in sizes), "yes" if row["fits"] else "no")
    output.print(rows)
    for sentence in plan["reasons"][1:]:  # the first one is of the engine
        output.say(sentence)
    output.say(_verdict(plan), "bold")


def _verdict(plan: dict[str, Any]) -> str:
    has = f"{amount(plan['device_memory'])}B of memory, a tenth of it left free"
    if plan["fits"]:
        return f"every stage fits into {has}"
    ways = [
        f"{amount(way['bytes'])}B with{' packed weights, for a little of the score' if way['is_packed'] else ''}\n "
        f" {' '.join(way['words'])}"
        for way in plan["advice"]
    ]
    if not ways:
        return f"the largest stage does not fit into {has}, whatever the settings; take a smaller model"
    return f"the largest stage does not fit into {has}; it takes " + ", or\n".join(ways)


def print_look(look: dict[str, Any]) -> None:
    """A task's splits in numbers, then examples as the model sees them."""
    output = Output()
    baseline = f"{look['baseline']['name']} scores {look['baseline']['score']:.2f}"
    output.say(
        f"{look['task']} ({look['origin']}), in tokens of {look['model']}; main metric {look['metric']}, {baseline}"
    )
    for note in look["notes"]:
        output.say(note)
    for rows in (_labels(look), _lengths(look)):
        output.say()
        output.print(rows)
    for split in look["splits"]:
        _print_extremes(output, split)
    for example in look["examples"]:
        _print_example(output, example)


def _print_extremes(output: Output, split: dict[str, Any]) -> None:
    """Which example of a split is the longest, and the characters that the model cannot read."""
    longest = ", ".join(f"{split['longest'][side]} has the longest {side}" for side in split["longest"])
    output.say(f"{split['name']}: {longest}")
    if unknown := split["unknown"]:
        most = ", ".join(f"{character} ({count:,})" for character, count in list(unknown.items())[:UNKNOWN])
        more = f", and {len(unknown) - UNKNOWN:,} others" if len(unknown) > UNKNOWN else ""
        output.say(f"  characters that the tokenizer does not know: {most}{more}")


def _labels(look: dict[str, Any]) -> Table:
    """How many examples each split has, and of each label."""
    rows = table("split", "examples", *(f"'{label}'" for label in look["labels"]), words="split")
    for split in look["splits"]:
        shares = (_share(count, split) for count in (split["labels"] or {}).values())
        rows.add_row(split["name"], f"{split['examples']:,}", *shares)
    return rows


def _lengths(look: dict[str, Any]) -> Table:
    """How long sources and targets are, and how many are cut; an answer can be lost by it where it is no label."""
    splits, with_answers = look["splits"], not look["labels"]
    rows = table(
        "tokens of", "limit", *splits[0]["source_tokens"], "cut", *["answers lost"] * with_answers, words="tokens of"
    )
    for split in splits:
        for side in ("source", "target") if split["target_tokens"] else ("source",):
            numbers = (f"{number:,}" for number in split[f"{side}_tokens"].values())
            lost = f"{split['lost_answers']:,}" if side == "source" else ""
            cut = _share(split[f"cut_{side}s"], split)
            limit = f"{look['limits'][side]:,}"
            rows.add_row(f"{split['name']} {side}s", limit, *numbers, cut, *[lost] * with_answers)
    return rows


def _share(count: int, split: dict[str, Any]) -> str:
    return f"{count:,} ({count / split['examples']:.1%})"


def _print_example(output: Output, example: dict[str, Any]) -> None:
    """An example's texts and tokens, a row each."""
    cut = f" ({example['cut']:,} more cut)" if example["cut"] else ""
    lengths = f"{len(example['source_tokens']):,} source tokens{cut}, {len(example['target_tokens']):,} target tokens"
    output.say()
    output.say(f"{example['id']}: {lengths}", "bold")
    rows = Table.grid(padding=(0, 2))
    for side in ("source", "target"):
        rows.add_row(side, Text(example[side]))
        rows.add_row("tokens", _tokens(example[f"{side}_tokens"]))
    rows.add_row("gold", Text(" | ".join(gold or "∅" for gold in example["golds"])))
    output.print(rows)


def _tokens(tokens: list[str]) -> Text:
    """Tokens apart from each other, the middle of many left out."""
    if len(tokens) > MOST:
        tokens = [*tokens[: MOST - LAST], f"… {len(tokens) - MOST:,} tokens …", *tokens[-LAST:]]
    return Text(" ".join(tokens), style="cyan")


def print_report(report: dict[str, Any]) -> None:
    """What `fpt doctor` found: torch's report, the versions, and what is broken."""
    print(report["torch"], end="\n\n")
    print(*(f"{name} {number or 'is not installed'}" for name, number in report["versions"].items()), sep="\n")
    Output().say("; ".join(report["problems"]) or "nothing is broken", "bold")
