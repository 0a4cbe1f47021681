"""What a run will cost, for people: FLOPs, kept states, memory."""

from typing import Any

from fpt.cli.tables import Output, say_share, size, table
from fpt.units import amount

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
            *size(row),
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
    if plan["states"]:
        _print_states(output, plan["states"], [row["flops_states"] for row in plan["stages"]])
    _print_memory(output, plan["memory"])


def _print_states(output: Output, states: dict[str, Any], flops: list[int]) -> None:
    """Whether the states below a late prompt are kept, and what every stage does about them."""
    output.say()
    output.say(states["told"])
    if states["where"] == "off":
        return
    rows = table("stage", "blocks below", "their states are", "FLOPs")
    for number, (row, cost) in enumerate(zip(states["stages"], flops, strict=True), 1):
        anew = " anew" if number > 1 and row["does"] == "compute" else ""
        rows.add_row(str(number), str(row["blocks"]), DOES[row["does"]] + anew, amount(cost))
    output.print(rows)


def _print_memory(output: Output, memory: dict[str, Any]) -> None:
    """What every stage takes on one device, and what would make the largest fit."""
    checkpointing = "on" if memory["activation_checkpointing"] else "off"
    processes = f"{memory['processes']} process{'es' if memory['processes'] > 1 else ''}"
    output.say()
    output.say(
        f"memory of one device, engine {memory['engine']}, {processes},"
        f" {memory['micro_batch']} examples at once, activation checkpointing {checkpointing}"
    )
    rows = table("stage", "weights", "activations", "checkpointed", "rest", "total", "fits")
    for number, row in enumerate(memory["stages"], 1):
        sizes = (row[key] for key in ("weights", "activations", "activations_checkpointed", "rest", "total"))
        rows.add_row(str(number), *(f"{amount(size)}B" for size in sizes), "yes" if row["fits"] else "no")
    output.print(rows)
    output.say(_verdict(memory), "bold")


def _verdict(memory: dict[str, Any]) -> str:
    has = f"{amount(memory['device_memory'])}B of memory, a tenth of it left free"
    if memory["fits"]:
        return f"every stage fits into {has}"
    if memory["advice"] is None:
        return f"the largest stage does not fit into {has}, whatever the settings; take a smaller model"
    settings = " ".join(memory["advice"])
    return f"the largest stage does not fit into {has}; it takes {amount(memory['advised_bytes'])}B with\n  {settings}"
