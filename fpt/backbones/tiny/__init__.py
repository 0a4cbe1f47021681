"""The embedded backbone: weights, vocabulary, card and log in this folder; `pretraining` made them."""

import json
from pathlib import Path

from fpt.errors import reason
from fpt.runs.folder import problem_of

FOLDER = Path(__file__).parent
HASHES = "sha256.json"  # of the files, as `pretraining` recorded them
FILES = ("config.json", "model.safetensors", "spiece.model", "tokenizer_config.json")


def problems(folder: Path = FOLDER) -> dict[str, str]:
    """What is wrong with the files, by name; empty where every hash is as recorded."""
    try:
        recorded = json.loads((folder / HASHES).read_text(encoding="utf-8"))
        checked = {name: problem_of(folder / name, [recorded[name]]) for name in FILES}
    except (OSError, ValueError, TypeError, KeyError) as error:
        return {HASHES: f"cannot be read ({reason(error)})"}
    return {name: problem for name, problem in checked.items() if problem}
