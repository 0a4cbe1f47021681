"""Reads back the records that fpt wrote, and refuses files of another form with a one-line error."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from yaml import YAMLError

from fpt.config import literal
from fpt.errors import UserError

RESULT = "result.json"
PLAN = "plan.json"
MEASURED = "measured.json"
INPUTS = "inputs.json"
STAGE = "stage.json"  # in a stage's folder
# The keys that readers rely on; a dot leads into a mapping.
KEYS = {
    RESULT: ("task", "model", "schedule", "seed", "dtype", "metric.name", "metric.value", "metrics", "stages", "flops"),
    PLAN: ("stages",),
    MEASURED: ("untrained", "seconds"),
    INPUTS: ("model", "data", "prompt's start", "threads"),
    STAGE: ("index", "encoder_layers", "decoder_layers", "ffn", "decoder_ffn"),
}


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """A context for reading a file, in which errors become one line: the file is not what fpt writes."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, SafetensorError, YAMLError):
        raise UserError(f"{file}: is not what fpt writes; start over with resume=never") from None


def configuration(file: Path, data: bytes) -> dict[str, Any]:
    """Parse a config.yaml into plain values; `${…}` in it is not resolved."""
    with reading(file):
        values = literal.parse(data.decode())
        for group in ("task", "model", "schedule"):
            getitem(values[group], "name")
        return dict(values)


def json_object(file: Path, data: bytes) -> dict[str, Any]:
    """Parse a JSON file's object, and check that it has the keys that readers rely on."""
    with reading(file):
        values = json.loads(data)
        for key in KEYS.get(file.name, ()):
            reduce(getitem, key.split("."), values)
        return dict(values)


def json_lines(file: Path, data: bytes) -> list[dict[str, Any]]:
    """Parse a file that has a JSON object in every line."""
    with reading(file):
        return [dict(json.loads(line)) for line in data.splitlines()]
