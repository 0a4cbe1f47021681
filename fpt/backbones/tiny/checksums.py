"""Whether the embedded backbone's files are those that its recipe made, which records their hashes."""

import json
from pathlib import Path

from fpt.backbones.tiny import FOLDER
from fpt.errors import reason
from fpt.runs.folder import problem_of

RECORD = "sha256.json"
FILES = ("config.json", "model.safetensors", "spiece.model", "tokenizer_config.json")


def problems(folder: Path = FOLDER) -> dict[str, str]:
    """What is wrong, by file; empty where every hash holds."""
    try:
        recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        checked = {name: problem_of(folder / name, [recorded[name]]) for name in FILES}
    except (OSError, ValueError, TypeError, KeyError) as error:
        return {RECORD: f"cannot be read ({reason(error)})"}
    return {name: problem for name, problem in checked.items() if problem}
