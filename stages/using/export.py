"""A run's prompt, and the partial PLM it belongs to, written in a format that others read."""

from pathlib import Path
from typing import Any

from fpt.backbones.backbone import open_backbone
from fpt.errors import UserError
from fpt.prompts.kinds import kind_of
from fpt.prompts.soft import TENSOR
from fpt.runs.progress import Progress
from fpt.runs.run import PROMPT
from fpt.sharing import card, hub
from fpt.sharing.export import ExportRequest, adapter, array, made_aside
from fpt.training.checkpoint import dump_prompt
from stages import partial
from stages.using import learned as trained
from stages.using.learned import LearnedPrompt


def export(made: ExportRequest, progress: Progress) -> dict[str, Any]:
    """Write what was asked for, with its model card, and send it to the Hub if that was asked for too.

    Raises:
        UserError: a file of the run is damaged, its model is another now, or the Hub cannot be reached.
    """
    learned = trained.from_run(made.run, made.number)
    with made_aside(made.folder) as aside:
        if made.to == "hf":
            with progress.console.status("writing the model"):
                _write_model(made, learned, aside)
        else:
            aside.mkdir()
        if made.to in ("hf", "fpt"):
            use = kind_of(learned.how).metadata(made.layer)
            files = {PROMPT: dump_prompt(learned.tensors, stage=made.stage.name, **use)}
        elif made.to == "npy":
            files = array(learned.tensors[TENSOR])
        else:
            layers, heads = made.shape.encoder.blocks, made.values["num_heads"]
            revision = card.revision(made)
            files = adapter(learned.tensors[TENSOR], base=made.base, revision=revision, layers=layers, heads=heads)
        for name, data in (files | {"README.md": card.text(made).encode()}).items():
            (aside / name).write_bytes(data)
    url = None
    if made.repo:
        with progress.console.status(f"sending it to {made.repo}"):
            url = hub.push(made.folder, made.repo)
    names = sorted(file.name for file in made.folder.iterdir())
    return {"to": made.to, "prompt": made.what, "folder": str(made.folder), "files": names, "url": url}


def _write_model(made: ExportRequest, learned: LearnedPrompt, folder: Path) -> None:
    """The stage's model as a checkpoint, in float32, which holds every weight on disk as it is."""
    backbone = open_backbone(made.run.config.model)
    if learned.fingerprint != backbone.fingerprint:
        raise UserError(f"run={made.run.path}: the model has changed since this run; {backbone.folder} is another now")
    partial.save(partial.build(backbone, learned.selection(backbone)), backbone, folder)
