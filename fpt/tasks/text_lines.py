"""Reads a text file line by line: in UTF-8, or in UTF-16 if its first bytes say so, plain or compressed with gzip."""

import codecs
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from fpt.errors import UserError, reason
from fpt.runs.foreign import other_kind
from fpt.tasks.faults import Faults

GZIP = b"\x1f\x8b"  # the first bytes of what is compressed with gzip
TO_UTF8 = "save the file as UTF-8, as iconv -f latin1 -t utf-8 writes Latin-1"
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what bytes that are not UTF-8 become with "surrogateescape"


def check_utf8(text: str, where: str) -> None:
    """Refuse a text that was read with "surrogateescape" from bytes that are not UTF-8."""
    if not text.isascii() and NOT_UTF8.search(text):
        raise UserError(f"{where}: not UTF-8; {TO_UTF8}")


def lines(file: Path, faults: Faults, *, lenient: bool = False) -> Iterator[tuple[int, str]]:
    """Read lines one by one, each with its number; bytes that are not UTF-8 are a fault, or, if lenient, escaped."""
    try:
        with _opened(file) as text:
            for number, line in enumerate(text, 1):
                with faults:
                    if not lenient:
                        check_utf8(line, f"{file}, line {number}")
                    yield number, line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-16, which its first bytes say it is ({error.reason})") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{file}: is a damaged gzip file ({reason(error)}); fetch or pack it anew") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def _opened(file: Path) -> TextIO:
    """A file as text; its first bytes say whether it is compressed with gzip, and whether the text is UTF-16."""
    with file.open("rb") as stream:
        opened: Callable[..., Any] = gzip.open if stream.read(len(GZIP)) == GZIP else open
    if opened is open and (other := other_kind(file)) and file.stat().st_size:
        raise UserError(f"{file}: {other}")
    with opened(file, "rb") as stream:
        start = stream.read(4)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise UserError(f"{file}: is UTF-32; save it as UTF-8")
    if b"\0" in start[:2]:
        raise UserError(f"{file}: begins with NUL, as UTF-16 does; save it as UTF-8")
    encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    text: TextIO = opened(file, "rt", encoding=encoding, errors="surrogateescape", newline="\n")
    return text
