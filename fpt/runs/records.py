"""What fpt wrote is read back here: a record of another form ends in one line, not in a traceback."""

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
# The keys that are read without asking whether they are there; a dot leads into a mapping.
HAS = {
    RESULT: ("task", "model", "schedule", "seed", "dtype", "metric.name", "metric.value", "metrics", "stages", "flops"),
    PLAN: ("stages",),
    MEASURED: ("scored", "untrained", "seconds"),
    INPUTS: ("model", "data", "prompt's start", "configuration", "threads"),
    STAGE: ("index", "encoder_layers", "decoder_layers", "ffn", "decoder_ffn"),
}


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Within, a file is taken for what fpt writes."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, SafetensorError, YAMLError):
        raise UserError(f"{file}: is not what fpt writes; the run can be started over with resume=never") from None


def configuration(file: Path, data: bytes) -> dict[str, Any]:
    """The configuration in a config.yaml's bytes as plain values, which nothing is resolved in."""
    with reading(file):
        values = literal.parse(data.decode())
        for group in ("task", "model", "schedule"):
            getitem(values[group], "name")
        return dict(values)


def json_object(file: Path, data: bytes) -> dict[str, Any]:
    """The object in a JSON file's bytes, with all that such a file has."""
    with reading(file):
        values = json.loads(data)
        for key in HAS.get(file.name, ()):
            reduce(getitem, key.split("."), values)
        return dict(values)


def json_lines(file: Path, data: bytes) -> list[dict[str, Any]]:
    """The objects in the lines of a file's bytes."""
    with reading(file):
        return [dict(json.loads(line)) for line in data.splitlines()]
