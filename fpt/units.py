"""Numbers as people read and type them: metric prefixes, and amounts of memory."""

import re

from fpt.errors import UserError

UNITS = {"B": 1, **{f"{unit}B": 1000**power for power, unit in enumerate("KMGT", 1)}}
UNITS |= {f"{unit}iB": 1024**power for power, unit in enumerate("KMGT", 1)}


def amount(value: float) -> str:
    """A number with a metric prefix, three digits: 28.1 T."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if value < 999.5:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.3g} Z"


def bytes_of(memory: str) -> int:
    """Bytes of `engine.device_memory`, such as 24GiB."""
    typed = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", memory.strip())
    if not typed or typed[2] not in UNITS or not float(typed[1]):
        raise UserError(f"engine.device_memory={memory}: expected a number and a unit, as in 24GiB or 80GB")
    return int(float(typed[1]) * UNITS[typed[2]])
