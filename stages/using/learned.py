"""Reads learned prompts from runs and files, and checks that a model is the one a prompt was trained on."""

from dataclasses import dataclass, replace
from pathlib import Path

from fpt.backbones.backbone import Backbone
from fpt.backbones.shapes import Selection
from fpt.config.run_config import RunConfig
from fpt.config.schema import PromptConfig
from fpt.errors import UserError
from fpt.prompts.files import AS_IT_IS, open_prompt, refuse_other_tokenizer
from fpt.prompts.kinds import kind_of, width_of
from fpt.prompts.modules import Tensors
from fpt.runs.run import INPUTS, Run, reading
from stages import selection


@dataclass(frozen=True)
class LearnedPrompt:
    """A prompt, and what is known about the model that it was trained on; None for what is not known."""

    name: str  # where it comes from, as named in messages
    tensors: Tensors
    config: PromptConfig  # its kind, and where it enters
    part: Selection | None = None  # the part of the backbone that it is for; None: the whole
    fingerprint: str | None = None  # the hash of the backbone's weights
    vocabulary: str | None = None  # the tokenizer's hash
    max_new_tokens: int | None = None  # the limit of its outputs when it was scored

    def selection(self, backbone: Backbone) -> Selection:
        """Return the part of the backbone that the prompt is for; refuse a backbone that it was not trained on."""
        width = backbone.sizes.width
        kind = kind_of(self.config)
        held = width_of({name: tuple(tensor.shape) for name, tensor in self.tensors.items()})
        if held != width:
            raise UserError(f"{self.name}: holds vectors of {held}, but {backbone.folder} has states of {width}")
        kind.position(backbone.shape.source.blocks)
        kind.resolved(backbone.family.row.reads, backbone.shape.source.blocks)
        self.check_tokenizer(backbone)
        if self.fingerprint not in (None, backbone.fingerprint):
            raise UserError(
                f"{self.name}: the prompt was trained on another model than {backbone.folder}, whose config.json or"
                f" weights differ; {AS_IT_IS}"
            )
        return self.part or selection.everything(backbone.shape)

    def check_tokenizer(self, backbone: Backbone) -> None:
        """Refuse a tokenizer other than the one that the prompt was trained with."""
        refuse_other_tokenizer(self.name, self.vocabulary, backbone)


def check_same_model(prompt: LearnedPrompt, first: LearnedPrompt) -> None:
    """Refuse a prompt that is not for the same part of the same model as the first one."""
    if (prompt.fingerprint, prompt.part) != (first.fingerprint, first.part):
        raise UserError(
            f"{prompt.name}: its prompt is for another model, or another part of it, than that of {first.name}; they"
            " cannot be in one"
        )


def from_run(run: Run, stage: int | None) -> LearnedPrompt:
    """Read a run's best prompt, which is for the last stage's model, or a stage's last one, for that stage's model."""
    own = None if stage is None else run.stage(stage)
    file = (own or run.stages[-1]).file("selection.safetensors")
    with reading(run.path / file):
        part = selection.load(run.read(file))
    inputs = run.read_json(INPUTS)  # those of earlier versions of fpt do not say which tokenizer it was
    known = inputs["model"], inputs.get("tokenizer"), run.result.get("max_new_tokens")
    return LearnedPrompt(f"run={run.path}", run.learned(own), run.config.prompt, part, *known)


def from_file(config: RunConfig) -> LearnedPrompt:
    """Read the prompt in `prompt.file`, which is for the whole model."""
    stored = open_prompt(Path(str(config.prompt.file)).expanduser())
    own = stored.config
    if config.prompt.place != PromptConfig.place:  # other tools' files cannot say so
        own = replace(own, place=config.prompt.place)
    name, known = f"prompt.file={config.prompt.file}", (stored.fingerprint, stored.vocabulary)
    return LearnedPrompt(name, stored.tensors(), own, None, *known)
