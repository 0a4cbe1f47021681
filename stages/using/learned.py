"""A learned prompt, and the part of the backbone that it is for."""

import json
from dataclasses import dataclass
from pathlib import Path

from fpt.backbones.backbone import Backbone
from fpt.backbones.shapes import Selection
from fpt.config.run_config import RunConfig
from fpt.config.schema import PromptConfig
from fpt.errors import UserError
from fpt.prompts.files import open_prompt
from fpt.prompts.kinds import kind_of
from fpt.prompts.modules import Tensors
from fpt.runs.run import Run
from stages import selection
from stages.inputs import INPUTS


@dataclass(frozen=True)
class LearnedPrompt:
    """A prompt.

    Attributes:
        name: where it is from, for people.
        tensors: of the prompt, by name.
        config: what they are, and where they enter.
        part: what it keeps of the backbone; None: the whole.
        fingerprint: of the backbone that it was trained on; None: any will do whose vectors are as wide.
        max_new_tokens: no output was longer when it was scored; None: not known.
    """

    name: str
    tensors: Tensors
    config: PromptConfig
    part: Selection | None = None
    fingerprint: str | None = None
    max_new_tokens: int | None = None

    def selection(self, backbone: Backbone) -> Selection:
        """What of the backbone the prompt is for.

        Raises:
            UserError: the prompt does not belong to this model.
        """
        width = backbone.sizes.width
        kind = kind_of(self.config)
        held = kind.width({name: tuple(tensor.shape) for name, tensor in self.tensors.items()})
        if held != width:
            raise UserError(f"{self.name}: holds vectors of {held}, but {backbone.folder} has states of {width}")
        kind.position(backbone.shape.source.blocks)
        if self.fingerprint not in (None, backbone.fingerprint):
            raise UserError(
                f"{self.name}: the prompt was trained on another model than {backbone.folder}; to use it there, give"
                " its prompt.safetensors as prompt.file in place of the run"
            )
        return self.part or selection.everything(backbone.shape)


def check_same_model(prompt: LearnedPrompt, first: LearnedPrompt) -> None:
    """Refuse a prompt that is not for the same model as another, and the same part of it.

    Raises:
        UserError: it is not.
    """
    if (prompt.fingerprint, prompt.part) != (first.fingerprint, first.part):
        raise UserError(
            f"{prompt.name}: its prompt is for another model, or another part of it, than that of {first.name}; they"
            " cannot be in one"
        )


def from_run(run: Run, stage: int | None) -> LearnedPrompt:
    """A run's best prompt with its last stage's model, or the prompt of a stage with that stage's.

    Raises:
        UserError: the run is not finished, has no such stage, or a file of it is damaged.
    """
    limit = run.result.get("max_new_tokens")
    own = None if stage is None else run.stage(stage)
    part = selection.load(run.read(f"stages/{(own or run.stages[-1]).name}/selection.safetensors"))
    fingerprint = json.loads(run.read(INPUTS))["model"]
    return LearnedPrompt(f"run={run.path}", run.learned(own), run.config.prompt, part, fingerprint, limit)


def from_file(config: RunConfig) -> LearnedPrompt:
    """The prompt in `prompt.file`, for the whole model.

    Raises:
        UserError: no prompt can be read there.
    """
    stored = open_prompt(Path(str(config.prompt.file)).expanduser())
    return LearnedPrompt(f"prompt.file={config.prompt.file}", stored.read(), stored.config)
