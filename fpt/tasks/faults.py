"""Records that cannot be used: each is an error, or with task.on_error=skip is left out and reported to the user."""

from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType

from fpt.errors import UserError

SHOWN = 3  # messages that a note quotes in full
HINT = "; task.on_error=skip leaves such out"


@dataclass
class Faults:
    """Collects what is left out: lines known to be unusable in the original data and, with `skip`, faulty records.

    As a context manager (`with faults:`) it treats a UserError raised inside as a faulty record.
    """

    skip: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)

    def add(self, error: UserError) -> None:
        """Note a faulty record, or raise its error if faulty records are not to be skipped."""
        message = str(error).removesuffix(HINT).removesuffix(".")  # an inner context may have added the hint already
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
