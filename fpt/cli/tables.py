"""Prints results, as JSON or as text and tables, on standard output."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fpt.cli.arguments import Arguments
from fpt.runs.run import layers_and_neurons
from fpt.units import amount


def present(arguments: Arguments, value: Any, for_people: Callable[[Any], None]) -> None:
    """Print a result as JSON if --json is given, otherwise for people."""
    if "json" in arguments.options:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        for_people(value)


class Output(Console):
    """Standard output, on which a closed pipe raises its error; rich would end the program with status 1."""

    def __init__(self, *, width: int = 120) -> None:
        """Open standard output; `width` is used for pipes and files, which have none of their own."""
        super().__init__(highlight=False, soft_wrap=True)
        if not self.is_terminal:
            self.width = width

    def on_broken_pipe(self) -> None:
        """Raise the error, which the command's caller handles."""
        raise

    def say(self, text: str = "", style: str = "") -> None:
        """Print text as it is, without reading rich's markup in it."""
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
    """The first columns of a stage's row: its number, layers, FFN widths and updates."""
    layers, neurons = layers_and_neurons(stage)
    return {"stage": str(number), "layers enc+dec": layers, "FFN enc/dec": neurons, "updates": f"{stage['updates']:,}"}


def in_bytes(number: float) -> str:
    """Format a number of bytes, as in 1.5 GB."""
    return f"{amount(number)}B"


def say_share(output: Output, values: dict[str, Any]) -> None:
    """Print FLOPs, also as a share of those of vanilla prompt tuning with a soft prompt of the same length."""
    scoring = values["flops_importance"] / values["flops"]
    note = f"; {scoring:.1%} of them went into scoring neurons" if scoring else ""
    spent, share, vanilla = amount(values["flops"]), values["flops_ratio"], amount(values["flops_pt"])
    prompt = f" ({values['vectors_pt']} vectors)" if values.get("vectors_pt") else ""  # earlier versions lack it
    output.say(f"{spent}FLOPs, {share:.1%} of vanilla prompt tuning's {vanilla}FLOPs{prompt}{note}", "bold")
