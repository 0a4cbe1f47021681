"""What happens to data that cannot be used: an error, or with task.on_error=skip a note to the user."""

from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType

from fpt.errors import UserError

SHOWN = 3  # faults that are spelt out
HINT = "; task.on_error=skip leaves such out"


@dataclass
class Faults:
    """What is not read: lines that the distribution itself leaves out, and with `skip` records that are wrong.

    As a context (`with faults:`) it takes a UserError raised within for such a record's.
    """

    skip: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)

    def add(self, error: UserError) -> None:
        """Note a record that cannot be used; it is an error unless such are skipped."""
        message = str(error).removesuffix(HINT).removesuffix(".")  # a part of it may have been refused by itself
        if not self.skip:
            raise UserError(f"{message}{HINT}") from None
        self.messages.append(message)

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        if isinstance(error, UserError):
            self.add(error)
            return True
        return False

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that say how many records were left out, and why."""
        notes = [f"{what}: {count:,} left out" for what, count in self.left_out.items()]
        if self.messages:
            more = f"; and {len(self.messages) - SHOWN:,} more" if len(self.messages) > SHOWN else ""
            shown = "; ".join(self.messages[:SHOWN])
            notes.append(f"task.on_error=skip: {len(self.messages):,} skipped: {shown}{more}")
        return tuple(notes)
