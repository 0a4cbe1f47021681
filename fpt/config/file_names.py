"""Turns the name of a file or folder, as the user typed it, into a path."""

from pathlib import Path

from fpt.errors import UserError

LONGEST = 255  # the most bytes of a name on common file systems


def place(text: str, key: str) -> Path:
    """The path of a file or folder, which need not exist; ~ stands for a home folder."""
    path = Path(text)
    if any(len(part.encode("utf-8", "replace")) > LONGEST for part in path.parts):
        raise UserError(f"{key}={text[:40]}…: a file's name has at most {LONGEST} bytes; give a shorter one")
    try:
        path = path.expanduser()
        path.resolve()
    except RuntimeError as error:
        why = "its links lead in a circle" if "loop" in str(error) else f"there is no such user; write ./{text}"
        raise UserError(f"{key}={text}: {why}") from None
    except UnicodeEncodeError as error:
        raise UserError(f"{key}={text}: no file can have this name in {error.encoding}; set LC_ALL=C.UTF-8") from None
    except OSError as error:
        raise UserError(f"{key}={text[:40]}: cannot be a file's name ({error.strerror})") from None
    return path
