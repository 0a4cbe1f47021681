"""A learned prompt, and the part of the backbone that it is for."""

from dataclasses import dataclass
from pathlib import Path

from fpt.backbones.backbone import Backbone
from fpt.backbones.location import TOKENIZER_FILES
from fpt.backbones.shapes import Selection
from fpt.config.run_config import RunConfig
from fpt.config.schema import PromptConfig
from fpt.errors import UserError
from fpt.prompts.files import open_prompt
from fpt.prompts.kinds import kind_of
from fpt.prompts.modules import Tensors
from fpt.runs.folder import LEDGER
from fpt.runs.records import INPUTS, reading
from fpt.runs.run import Run, open_run
from stages import selection

AS_IT_IS = "to use it there as it is, give its prompt.safetensors as prompt.file in place of the run"


@dataclass(frozen=True)
class LearnedPrompt:
    """A prompt.

    Attributes:
        name: where it is from, for people.
        tensors: of the prompt, by name.
        config: what they are, and where they enter.
        part: what it keeps of the backbone; None: the whole.
        fingerprint: of the backbone that it was trained on; None: any will do whose vectors are as wide.
        vocabulary: hash of the tokenizer that it was trained with; None: not known, or any will do.
        max_new_tokens: no output was longer when it was scored; None: not known.
    """

    name: str
    tensors: Tensors
    config: PromptConfig
    part: Selection | None = None
    fingerprint: str | None = None
    vocabulary: str | None = None
    max_new_tokens: int | None = None

    def selection(self, backbone: Backbone) -> Selection:
        """What of the backbone the prompt is for."""
        width = backbone.sizes.width
        kind = kind_of(self.config)
        held = kind.width({name: tuple(tensor.shape) for name, tensor in self.tensors.items()})
        if held != width:
            raise UserError(f"{self.name}: holds vectors of {held}, but {backbone.folder} has states of {width}")
        kind.position(backbone.shape.source.blocks)
        self.check_tokenizer(backbone)
        if self.fingerprint not in (None, backbone.fingerprint):
            raise UserError(
                f"{self.name}: the prompt was trained on another model than {backbone.folder}, whose config.json or"
                f" weights differ; {AS_IT_IS}"
            )
        return self.part or selection.everything(backbone.shape)

    def check_tokenizer(self, backbone: Backbone) -> None:
        """Refuse a tokenizer that makes other tokens than those that the prompt was trained with."""
        if self.vocabulary not in (None, backbone.vocabulary):
            raise UserError(
                f"{self.name}: the prompt was trained with another tokenizer than that in {backbone.folder}, whose"
                f" files ({', '.join(TOKENIZER_FILES)}) have changed; put them back, or {AS_IT_IS}"
            )


def check_same_model(prompt: LearnedPrompt, first: LearnedPrompt) -> None:
    """Refuse a prompt that is not for the same model as another, and the same part of it."""
    if (prompt.fingerprint, prompt.part) != (first.fingerprint, first.part):
        raise UserError(
            f"{prompt.name}: its prompt is for another model, or another part of it, than that of {first.name}; they"
            " cannot be in one"
        )


def from_run(run: Run, stage: int | None) -> LearnedPrompt:
    """A run's best prompt with its last stage's model, or the prompt of a stage with that stage's."""
    limit = run.result.get("max_new_tokens")
    own = None if stage is None else run.stage(stage)
    file = f"stages/{(own or run.stages[-1]).name}/selection.safetensors"
    with reading(run.path / file):
        part = selection.load(run.read(file))
    return LearnedPrompt(f"run={run.path}", run.learned(own), run.config.prompt, part, *_trained_on(run), limit)


def from_file(config: RunConfig) -> LearnedPrompt:
    """The prompt in `prompt.file`, for the whole model."""
    path = Path(str(config.prompt.file)).expanduser()
    stored, known = open_prompt(path), _trained_on(open_run(path)) if (path / LEDGER).is_file() else (None, None)
    return LearnedPrompt(f"prompt.file={config.prompt.file}", stored.read(), stored.config, None, *known)


def _trained_on(run: Run) -> tuple[str, str | None]:
    """Hashes of a run's model and tokenizer; of the latter None where an earlier version of fpt trained it."""
    inputs = run.read_json(INPUTS)
    return inputs["model"], inputs.get("tokenizer")
