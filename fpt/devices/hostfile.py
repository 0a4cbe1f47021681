"""DeepSpeed's hostfile: the machines of a run, and how many processes each has."""

import re
from pathlib import Path

from fpt.errors import UserError


def slots(name: str) -> dict[str, int]:
    """Processes by machine, in order.

    Raises:
        UserError: the file cannot be used.
    """
    file, found = Path(name).expanduser(), dict[str, int]()
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"engine.hostfile={name}: cannot be read ({why}); expected lines of 'host slots=N'") from None
    for line in map(str.strip, lines):
        if not line or line.startswith("#"):
            continue
        match = re.match(r"(\S+)\s+slots=0*([1-9]\d*)", line)
        if match is None:
            raise UserError(f"engine.hostfile={name}: '{line}' is not of the form 'host slots=N', N at least 1")
        if match[1] in found:
            raise UserError(f"engine.hostfile={name}: names {match[1]} twice; give it one line")
        found[match[1]] = int(match[2])
    if not found:
        raise UserError(f"engine.hostfile={name}: names no machine; expected lines of 'host slots=N'")
    return found
