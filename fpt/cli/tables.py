"""How results, text and tables are printed on standard output."""

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
    """Print a result for programs or for people, as the arguments say."""
    if "json" in arguments.options:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        for_people(value)


class Output(Console):
    """Standard output that leaves a closed pipe to the door; rich would end the program with status 1."""

    def __init__(self, *, width: int = 120) -> None:
        """A pipe or a file, which has no width to fit into, gets this one."""
        super().__init__(highlight=False, soft_wrap=True)
        if not self.is_terminal:
            self.width = width

    def on_broken_pipe(self) -> None:
        """Let the error through."""
        raise

    def say(self, text: str = "", style: str = "") -> None:
        """Text as it is, with nothing of rich's markup."""
        self.print(Text(text, style=style))

    def show(self, rows: Iterable[dict[str, str]], *, words: str = "") -> None:
        """A table with a column for each key, of numbers but for the column `words`."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for row in rows:
            for column in row if not table.columns else ():
                table.add_column(column, justify="left" if column == words else "right")
            table.add_row(*row.values())
        self.print(table)


def stage_cells(number: int, stage: dict[str, Any]) -> dict[str, str]:
    """The columns that say which stage of a run it is."""
    layers, neurons = layers_and_neurons(stage)
    return {"stage": str(number), "layers enc+dec": layers, "FFN enc/dec": neurons, "updates": f"{stage['updates']:,}"}


def in_bytes(number: float) -> str:
    """An amount of memory."""
    return f"{amount(number)}B"


def say_share(output: Output, values: dict[str, Any]) -> None:
    """FLOPs, as a share of vanilla prompt tuning's, whose prompt is as long, and vectors before the input."""
    scoring = values["flops_importance"] / values["flops"]
    note = f"; {scoring:.1%} of them went into scoring neurons" if scoring else ""
    spent, share, vanilla = amount(values["flops"]), values["flops_ratio"], amount(values["flops_pt"])
    prompt = f" ({values['vectors_pt']} vectors)" if values.get("vectors_pt") else ""  # not said by every fpt that was
    output.say(f"{spent}FLOPs, {share:.1%} of vanilla prompt tuning's {vanilla}FLOPs{prompt}{note}", "bold")
