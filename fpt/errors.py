"""Errors that tell a user, in one clear line, which input cannot be used and what to do."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """The user's input is at fault; the message is one line, and the program ends with status 2."""


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The question ` Did you mean 'x'?` with the closest known word, or an empty string."""
    close = get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def check_among(word: str, known: Collection[str], what: str) -> None:
    """Refuse a word that is not among the known ones; `what` says where it was given, and the message lists them."""
    if word not in known:
        raise UserError(f"{what} {', '.join(known)}.{did_you_mean(word, known)}")


def reason(error: BaseException) -> str:
    """The first line of what a library says, after the error's type."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
