"""A run's prompt, and the partial PLM it belongs to, written in a format that others read."""

import json
from pathlib import Path
from typing import Any

from fpt import card, hub
from fpt.backbones.backbone import open_backbone
from fpt.checkpoint import dump_prompt
from fpt.errors import UserError
from fpt.export import Export, adapter, array, made_aside
from fpt.records import PROMPT
from fpt.tracking import Tracker
from stages import partial, selection
from stages.prepare import INPUTS


def export(made: Export, tracker: Tracker) -> dict[str, Any]:
    """Write what was asked for, with its model card, and send it to the Hub if that was asked for too.

    Raises:
        UserError: a file of the run is damaged, its model is another now, or the Hub cannot be reached.
    """
    prompt = made.run.prompt(None if made.number is None else made.stage)
    with made_aside(made.folder) as aside:
        if made.to == "hf":
            with tracker.console.status("writing the model"):
                _write_model(made, aside)
            files = {PROMPT: dump_prompt(prompt, stage=made.stage.name)}
        elif made.to == "npy":
            aside.mkdir()
            files = array(prompt)
        else:
            aside.mkdir()
            layers, heads = made.shape.encoder.blocks, made.values["num_heads"]
            revision = card.revision(made)
            files = adapter(prompt, base=made.base, revision=revision, layers=layers, heads=heads)
        for name, data in (files | {"README.md": card.text(made, length=prompt.shape[0]).encode()}).items():
            (aside / name).write_bytes(data)
    url = None
    if made.repo:
        with tracker.console.status(f"sending it to {made.repo}"):
            url = hub.push(made.folder, made.repo)
    names = sorted(file.name for file in made.folder.iterdir())
    return {"to": made.to, "prompt": made.what, "folder": str(made.folder), "files": names, "url": url}


def _write_model(made: Export, folder: Path) -> None:
    """The stage's model as a checkpoint, in float32, which holds every weight on disk as it is."""
    backbone = open_backbone(made.run.config.model)
    if json.loads(made.run.read(INPUTS))["model"] != backbone.fingerprint:
        raise UserError(f"run={made.run.path}: the model has changed since this run; {backbone.folder} is another now")
    chosen = selection.load(made.run.read(f"stages/{made.stage.name}/selection.safetensors"))
    partial.save(partial.build(backbone, chosen), backbone, folder)
