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
from stages.using.learned import LearnedPrompt, from_run


def export(request: ExportRequest, progress: Progress) -> dict[str, Any]:
    """Write what was asked for, with its model card, and send it to the Hub if that was asked for too.

    Raises:
        UserError: a file of the run is damaged, its model is another now, or the Hub cannot be reached.
    """
    learned = from_run(request.run, request.number)
    with made_aside(request.folder) as aside:
        if request.to == "hf":
            with progress.console.status("writing the model"):
                _write_model(request, learned, aside)
        else:
            aside.mkdir()
        if request.to in ("hf", "fpt"):
            use = kind_of(learned.config).metadata(request.layer)
            files = {PROMPT: dump_prompt(learned.tensors, stage=request.stage.name, **use)}
        elif request.to == "npy":
            files = array(learned.tensors[TENSOR])
        else:
            layers, heads = request.shape.encoder.blocks, request.values["num_heads"]
            revision = card.revision(request)
            files = adapter(learned.tensors[TENSOR], base=request.base, revision=revision, layers=layers, heads=heads)
        for name, data in (files | {"README.md": card.text(request).encode()}).items():
            (aside / name).write_bytes(data)
    url = None
    if request.repo:
        with progress.console.status(f"sending it to {request.repo}"):
            url = hub.push(request.folder, request.repo)
    names = sorted(file.name for file in request.folder.iterdir())
    return {"to": request.to, "prompt": request.what, "folder": str(request.folder), "files": names, "url": url}


def _write_model(request: ExportRequest, learned: LearnedPrompt, folder: Path) -> None:
    """The stage's model as a checkpoint, in float32, which holds every weight on disk as it is."""
    backbone = open_backbone(request.run.config.model)
    if learned.fingerprint != backbone.fingerprint:
        raise UserError(
            f"run={request.run.path}: the model has changed since this run; {backbone.folder} is another now"
        )
    partial.save(partial.build(backbone, learned.selection(backbone)), backbone, folder)
