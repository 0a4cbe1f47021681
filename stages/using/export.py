"""A run's prompt, and the partial PLM it belongs to, written in a format that others read."""

from pathlib import Path
from typing import Any

import numpy as np

from fpt.backbones.backbone import open_backbone
from fpt.errors import UserError
from fpt.prompts.kinds import kind_of
from fpt.prompts.soft import TENSOR
from fpt.runs.atomic import new_folder
from fpt.runs.progress import Progress
from fpt.runs.run import PROMPT
from fpt.sharing import card
from fpt.sharing.export import ExportRequest, push, write_adapter
from fpt.training.checkpoint import dump_prompt
from stages import partial
from stages.using.learned import LearnedPrompt, from_run


def export(request: ExportRequest, progress: Progress) -> dict[str, Any]:
    """Write what was asked for, with its model card, and send it to the Hub if that was asked for too.

    Raises:
        UserError: a file of the run is damaged, its model is another now, the folder cannot be made, or the Hub
            cannot be reached.
    """
    learned, folder = from_run(request.run, request.number), request.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"output={folder}: cannot be made ({error.strerror})") from None
    with new_folder(folder) as aside:
        aside.mkdir()
        if request.to == "hf":
            with progress.console.status("writing the model"):
                _write_model(request, learned, aside)
        if request.to == "peft":
            write_adapter(aside, request, learned.tensors[TENSOR])
        elif request.to == "npy":  # as google-research/prompt-tuning's `prompts.from_array` takes it, float32
            np.save(aside / "prompt.npy", learned.tensors[TENSOR].float().numpy())
        else:
            use = kind_of(learned.config).metadata(request.layer)
            (aside / PROMPT).write_bytes(dump_prompt(learned.tensors, stage=request.stage.name, **use))
        (aside / "README.md").write_text(card.text(request), encoding="utf-8")
    url = None
    if request.repo:
        with progress.console.status(f"sending it to {request.repo}"):
            url = push(folder, request.repo)
    names = sorted(file.name for file in folder.iterdir())
    return {"to": request.to, "prompt": request.what, "folder": str(folder), "files": names, "url": url}


def _write_model(request: ExportRequest, learned: LearnedPrompt, folder: Path) -> None:
    """The stage's model as a checkpoint, in float32, which holds every weight on disk as it is."""
    backbone = open_backbone(request.run.config.model)
    if learned.fingerprint != backbone.fingerprint:
        raise UserError(
            f"run={request.run.path}: the model has changed since this run; {backbone.folder} is another now"
        )
    partial.save(partial.build(backbone, learned.selection(backbone)), backbone, folder)
