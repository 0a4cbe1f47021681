"""How results, text and tables are printed on standard output."""

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fpt.cli.arguments import Arguments
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


def table(*columns: str, words: str = "") -> Table:
    """An empty table, of numbers but for the column that has `words`."""
    empty = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        empty.add_column(column, justify="left" if column == words else "right")
    return empty


def say_share(output: Output, values: dict[str, Any]) -> None:
    """FLOPs, as a share of vanilla prompt tuning's, whose prompt is as long, and vectors before the input."""
    scoring = values["flops_importance"] / values["flops"]
    note = f"; {scoring:.1%} of them went into scoring neurons" if scoring else ""
    spent, share, vanilla = amount(values["flops"]), values["flops_ratio"], amount(values["flops_pt"])
    prompt = f" ({values['vectors_pt']} vectors)" if values.get("vectors_pt") else ""  # not said by every fpt that was
    output.say(f"{spent}FLOPs, {share:.1%} of vanilla prompt tuning's {vanilla}FLOPs{prompt}{note}", "bold")
