"""Prints plans, data sets and prompts for people: a run's cost, a task's data for the model, what was learned."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text

from fpt.cli.tables import Output, in_bytes, say_share, stage_cells
from fpt.units import amount

MOST = 80  # how many tokens of a text are shown
LAST = 20  # how many of these are from its end
UNKNOWN = 8  # how many unknown characters are listed
SIZES = ("weights", "activations", "activations_checkpointed", "rest", "total")
STATES = {"compute": "computed", "reuse": "those of the stage before", "off": "not kept"}


def print_plan(plan: dict[str, Any]) -> None:
    """Print every stage's shape, size and FLOPs, and the sum compared with vanilla prompt tuning."""
    output, stages = Output(), list(enumerate(plan["stages"], 1))
    output.say(
        f"{plan['task']} on {plan['model']}, schedule {plan['schedule']}: {plan['updates']:,} updates of"
        f" {plan['batch_size']} examples, {plan['source_length']} source tokens, prompt included,"
        f" and {plan['target_length']} target tokens"
    )
    output.show(
        {
            **stage_cells(number, stage),
            "parameters": amount(stage["parameters"]),
            "weights": in_bytes(stage["weight_bytes"]),
            "FLOPs/update": amount(stage["flops_per_update"]),
            "FLOPs": amount(stage["flops"]),
            "of full": f"{stage['flops_ratio']:.1%}",
        }
        for number, stage in stages
    )
    for number, blocks in enumerate(plan["blocks"], 1):
        if blocks:
            parts = (f"{stack} blocks {_ranges(kept)}" for stack, kept in blocks.items())
            output.say(f"stage {number} keeps {' and '.join(parts)}")
    say_share(output, plan)
    output.say(f"{plan['trainable_parameters']:,} trainable parameters; {plan['learning']}")
    if validation := plan["validation"]:
        output.say(
            f"validation: {validation['times']:,} times in training, {validation['examples']:,} outputs in all,"
            f" {amount(validation['flops'])}FLOPs; about {validation['share']:.0%} of the time"
        )
    if states := plan["states"]:
        output.say(f"\n{states['sentence']}")
        if states["bytes"]:
            output.show(_states(number, stage, states["stages"][number - 1]) for number, stage in stages)
    _print_memory(output, plan)


def _ranges(numbers: Sequence[int]) -> str:
    """Format ascending numbers, as in 0–2, 5."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _states(number: int, stage: dict[str, Any], does: str) -> dict[str, str]:
    """Whether a stage computes the states that the prompt does not change, or reuses them."""
    anew = " anew" if number > 1 and does == "compute" else ""
    below, flops = str(stage["blocks_below"]), amount(stage["flops_states"])
    return {"stage": str(number), "blocks": below, "their states are": STATES[does] + anew, "FLOPs": flops}


def _print_memory(output: Output, plan: dict[str, Any]) -> None:
    """Print every stage's memory on one device and, if the largest does not fit, what would make it fit."""
    checkpointing = "on" if plan["activation_checkpointing"] else "off"
    processes = f"{plan['processes']} process{'es' if plan['processes'] > 1 else ''}"
    rows: list[dict[str, str]] = []
    packed = "" if plan["quantize"] == "none" else f" weights packed as {plan['quantize']},"
    output.say(
        f"\nmemory of one device, engine {plan['engine']}, {processes},{packed}"
        f" {plan['micro_batch']} examples at once, activation checkpointing {checkpointing}"
    )
    for number, stage in enumerate(plan["stages"], 1):
        sizes = {key.rpartition("_")[2]: in_bytes(stage[key]) for key in SIZES}
        rows.append({"stage": str(number), **sizes, "fits": "yes" if stage["fits"] else "no"})
    output.show(rows)
    for sentence in plan["reasons"][1:]:  # the first one says why this engine
        output.say(sentence)
    output.say(_verdict(plan), "bold")


def _verdict(plan: dict[str, Any]) -> str:
    has = f"{in_bytes(plan['device_memory'])} of memory, a tenth of it left free"
    if plan["fits"]:
        return f"every stage fits into {has}"
    ways = [
        f"{in_bytes(way['bytes'])} with{' packed weights, for a little of the score' if way['is_packed'] else ''}\n "
        f" {' '.join(way['words'])}"
        for way in plan["advice"]
    ]
    if not ways:
        return f"the largest stage does not fit into {has}, whatever the settings; take a smaller model"
    return f"the largest stage does not fit into {has}; it takes " + ", or\n".join(ways)


def print_dataset(look: dict[str, Any]) -> None:
    """Print a task's splits in numbers, then examples as the model sees them."""
    output = Output()
    baseline = f"{look['baseline']['name']} scores {look['baseline']['score']:.2f}"
    output.say(
        f"{look['task']} ({look['origin']}), in tokens of {look['model']}; main metric {look['metric']}, {baseline}"
    )
    for note in look["notes"]:
        output.say(note)
    output.say()
    weights = {f"'{label}'": f"{look['class_weights'].get(label, 0):.3g}" for label in look["labels"]}
    weighing = [{"split": "weights", "examples": "", **weights}] if look["class_weights"] else []
    output.show([*map(_labels, look["splits"]), *weighing], words="split")
    output.say()
    output.show((row for split in look["splits"] for row in _lengths(split, look)), words="tokens of")
    for split in look["splits"]:
        longest = ", ".join(f"{split['longest'][side]} has the longest {side}" for side in split["longest"])
        output.say(f"{split['name']}: {longest}")
        if unknown := split["unknown"]:
            most = ", ".join(f"{character} ({count:,})" for character, count in list(unknown.items())[:UNKNOWN])
            more = f", and {len(unknown) - UNKNOWN:,} others" if len(unknown) > UNKNOWN else ""
            output.say(f"  characters that the tokenizer does not know: {most}{more}")
    for example in look["examples"]:
        _print_example(output, example)


def _labels(split: dict[str, Any]) -> dict[str, str]:
    """A split's row of counts: all its examples, and those of each label."""
    labels = {f"'{label}'": _share(count, split) for label, count in (split["labels"] or {}).items()}
    return {"split": split["name"], "examples": f"{split['examples']:,}", **labels}


def _lengths(split: dict[str, Any], look: dict[str, Any]) -> Iterator[dict[str, str]]:
    """A split's rows of lengths in tokens, and how many texts are cut; cutting can lose answers that are not labels."""
    for side in ("source", "target") if split["target_tokens"] else ("source",):
        lost = f"{split['lost_answers']:,}" if side == "source" else ""
        yield {
            "tokens of": f"{split['name']} {side}s",
            "limit": f"{look['limits'][side]:,}",
            **{name: f"{number:,}" for name, number in split[f"{side}_tokens"].items()},
            "cut": _share(split[f"cut_{side}s"], split),
            **({} if look["labels"] else {"answers lost": lost}),
        }


def _share(count: int, split: dict[str, Any]) -> str:
    return f"{count:,} ({count / split['examples']:.1%})"


def _print_example(output: Output, example: dict[str, Any]) -> None:
    """Print an example's texts and tokens, each in a row."""
    cut = f" ({example['cut']:,} more cut)" if example["cut"] else ""
    lengths = f"{len(example['source_tokens']):,} source tokens{cut}, {len(example['target_tokens']):,} target tokens"
    output.say(f"\n{example['id']}: {lengths}", "bold")
    rows = Table.grid(padding=(0, 2))
    for side in ("source", "target"):
        rows.add_row(side, Text(example[side]))
        rows.add_row("tokens", _tokens(example[f"{side}_tokens"]))
    rows.add_row("gold", Text(" | ".join(gold or "∅" for gold in example["golds"])))
    output.print(rows)


def _tokens(tokens: list[str]) -> Text:
    """Tokens separated by spaces; if there are many, the middle is left out."""
    if len(tokens) > MOST:
        tokens = [*tokens[: MOST - LAST], f"… {len(tokens) - MOST:,} tokens …", *tokens[-LAST:]]
    return Text(" ".join(tokens), style="cyan")


def print_prompt(view: dict[str, Any]) -> None:
    """Print a prompt's vectors, each with its nearest vocabulary items, and how alike the stages' prompts are."""
    output, typical, similarity = Output(), view["typical_norm"], view["similarity"]
    which = "best prompt" if view["stage"] is None else f"prompt of stage {view['stage']}"
    output.say(
        f"{view['run']}: the {which}; norms, of which an embedding of {view['model']} has {typical:.3g} (the median),"
        " and the nearest vocabulary items by cosine"
    )
    output.show(
        (
            {"vector": str(number), "norm": f"{vector['norm']:.3g}", "nearest": _nearest(vector)}
            for number, vector in enumerate(view["vectors"], 1)
        ),
        words="nearest",
    )
    if len(similarity) > 1:
        output.say("\nsimilarity of the stages' prompts: the mean cosine of corresponding vectors")
        output.show(
            {"stage": str(number), **{str(other): f"{value:.3f}" for other, value in enumerate(row, 1)}}
            for number, row in enumerate(similarity, 1)
        )


def _nearest(vector: dict[str, Any]) -> str:
    return "  ".join(f"{item['token']} {item['cosine']:.2f}" for item in vector["nearest"])
