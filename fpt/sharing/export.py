"""Checks a request to export before torch is imported, and makes PEFT adapters, prompts that are tokens, and cards."""

import json
import shlex
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpt.backbones import tiny
from fpt.backbones.family_table import FamilyRow, value_at
from fpt.backbones.location import config_values
from fpt.backbones.shapes import Shape, Stack, read_shape, read_sizes, row_of
from fpt.config import compose
from fpt.config.mixture import tasks_of
from fpt.config.schema import TaskConfig
from fpt.errors import UserError, check_among
from fpt.prompts.files import ADAPTER, ADAPTER_CONFIG, ADAPTER_TENSOR
from fpt.prompts.kinds import kind_of
from fpt.runs.run import Run, RunStage, open_run
from fpt.tasks.catalogue import data_of, rules_of
from fpt.tasks.task import MASK
from fpt.units import amount

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


FORMATS = ("fpt", "peft", "npy", "thunlp", "hf", "tokens", "embeds")
WITH_MODEL = ("hf", "tokens")  # the formats that include the prompt's model
# The settings that say how a text is read and answered.
ANSWERED_WITH = (
    "template",
    "labels",
    "multilabel",
    "chat",
    "add_bos_token",
    "answer",
    "source_length",
    "target_length",
)


@dataclass(frozen=True)
class ExportRequest:
    """A checked request to export one prompt."""

    run: Run
    to: str  # the format
    stage: RunStage  # the stage on whose model the prompt was learned
    number: int | None  # the number of the stage whose last prompt to export; None: the run's best prompt
    folder: Path  # the folder to write

    @cached_property
    def values(self) -> dict[str, Any]:
        """The config.json of the run's model."""
        return config_values(self.run.config.model)[0]

    @property
    def row(self) -> FamilyRow:
        """The row of the model's family."""
        return row_of(self.values, "")

    @cached_property
    def full(self) -> Shape:
        """The shape of the run's model."""
        return read_shape(self.values, "")

    @property
    def shape(self) -> Shape:
        """The shape of the stage's model."""
        sizes = self.stage.values
        widths = [sizes["ffn"], sizes["decoder_ffn"]]  # the first is the first stack's
        stacks = {name: Stack(sizes[f"{name}_layers"], width) for name, width in zip(self.full, widths, strict=False)}
        return Shape(**stacks)

    @property
    def layer(self) -> int:
        """The number of blocks below a late prompt in the stage's model."""
        layer = kind_of(self.run.config.prompt).position(self.full.source.blocks)
        return sum(block < layer for block in self.stage.values[f"{next(iter(self.shape))}_blocks"])

    @property
    def is_embedded(self) -> bool:
        """Whether the run's model is fpt's embedded one."""
        return self.run.config.model.weights == "embedded"

    @property
    def is_local(self) -> bool:
        """Whether the run's model is a folder on this machine."""
        return Path(self.base).is_dir()

    @property
    def base(self) -> str:
        """The run's model, as `from_pretrained` finds it from anywhere: a Hub id, or a folder's absolute path."""
        weights = self.run.config.model.weights
        folder = tiny.FOLDER if self.is_embedded else Path(weights).expanduser()
        return str(folder.resolve()) if folder.is_dir() else weights

    @property
    def what(self) -> str:
        """What the prompt is, in words for the user."""
        return "the run's best prompt" if self.number is None else f"the prompt at the end of stage {self.number}"


def check_request(path: str, to: str, *, number: int | None = None, folder: str | None = None) -> ExportRequest:
    """Check a typed request to export a prompt of the run in the folder `path`."""
    check_among(to, FORMATS, f"to={to}: allowed are")
    run = open_run(path)
    _ = run.result  # refuses a run that is not finished
    stage = run.stages[-1] if number is None else run.stage(number)
    name = to if number is None else f"{to}-stage{number}"
    target = Path(folder).expanduser() if folder else run.path / "export" / name
    request = ExportRequest(run, to, stage, number, target)
    if why := kind_of(run.config.prompt).not_exported.get(to, _not_held(request.row, to)):
        raise UserError(f"to={to}: {why}; to=fpt writes it as fpt reads it, to=hf its model too")
    if target.exists():
        raise UserError(f"{target}: exists already; remove it, or give another output=DIR")
    if to not in WITH_MODEL and request.shape != request.full:
        index = stage.values["index"]
        raise UserError(f"to={to}: stage {index} has a partial PLM, which to=hf stage={index} writes, with its prompt")
    return request


def _not_held(row: FamilyRow, to: str) -> str:
    """Say why a format cannot hold prompts for a model family; "" if it can."""
    if to == "peft":
        return row.no_peft
    if to == "embeds" and not row.reads.reads_target:
        return "servers take embeddings for decoder-only models alone"
    if to == "embeds" and row.positions is not None:
        return "a server would add positions to the prompt's vectors, fpt puts them behind that, as is published"
    return ""


def write_adapter(folder: Path, request: ExportRequest, prompt: "Tensor") -> None:
    """Write a PEFT prompt-tuning adapter with the prompt [P, D], without PEFT.

    PEFT itself would also save a prompt for an encoder-decoder's decoder, which its forward pass does not use.
    """
    from safetensors.numpy import save

    row = request.row
    values = {
        "base_model_name_or_path": request.base,
        "inference_mode": True,
        "num_attention_heads": value_at(request.values, row.first.key(row.num_heads)),
        "num_layers": request.shape.source.blocks,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prompt.shape[0],
        "peft_type": "PROMPT_TUNING",
        "revision": request.run.config.model.revision,
        "task_type": row.reads.peft_task,
        "token_dim": prompt.shape[1],
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tensors = {ADAPTER_TENSOR: prompt.float().contiguous().numpy()}
    (folder / ADAPTER).write_bytes(save(tensors, {"format": "pt"}))  # `save_file` lets nobody else read it


def written(name: str) -> str:
    """Write a prompt's name as it is used in a text."""
    return f"<prompt:{name}>"


def with_prompts(tokenizer: "PreTrainedTokenizerBase", lengths: dict[str, int]) -> "PreTrainedTokenizerBase":
    """Add prompts, by name and number of tokens, to a copy of a tokenizer, which replaces their names in texts by them.

    The rules for this are in its normaliser, so they hold in every program that reads its tokenizer.json.
    """
    from tokenizers import AddedToken, normalizers

    if not tokenizer.is_fast:
        raise UserError(f"to=tokens: {type(tokenizer).__name__} has no rules for names of prompts; to=peft needs none")
    tokenizer = deepcopy(tokenizer)
    library, rules = tokenizer.backend_tokenizer, []
    for name, length in lengths.items():
        tokens = [f"<prompt:{name}:{number}>" for number in range(length)]
        # With normalized=True they are matched after the rules have inserted them; special tokens are not decoded.
        added = [AddedToken(token, normalized=True, special=True) for token in tokens]
        if tokenizer.add_tokens(added, special_tokens=True) < length:
            raise UserError(f"to=tokens: the model has a prompt called {name} already; give another name with names=…")
        rules.append(normalizers.Replace(written(name), "".join(tokens)))
    library.normalizer = normalizers.Sequence([*rules, *filter(None, [library.normalizer])])
    return tokenizer


def card_of_prompt(request: ExportRequest) -> str:
    """Render an export's README.md: the Hub's metadata, without a licence, which the user must add, then text."""
    tasks = tasks_of(request.run.config)  # the first of a mixture is the one that the card shows the use for
    config, kind = next(iter(tasks.values())), kind_of(request.run.config.prompt)
    origins = [(data_of(own, rules_of(own.task)), rules_of(own.task).records) for own in tasks.values()]
    width = read_sizes(request.values, "").width
    return _rendered(
        "card.md.jinja",
        {
            "library_name": {"peft": "peft", "hf": "transformers"}.get(request.to),
            "base_model": None if request.is_local else request.base,
            "tags": ["prompt-tuning", f"{kind.name}-prompt", "fpt"],
            "metrics": [request.run.result["metric"]["name"]],
            "datasets": [records.hub[0] for data, records in origins if data == "hub"] or None,
        },
        request=request,
        model_name=model_name(request),
        tasks=tasks,
        origins=origins,
        source=source_of(request.run).replace(MASK, request.row.reads.sentinel or MASK),
        kind=kind,
        width=width,
        described=kind.described(width, request.layer, model_name(request)),
        words=_words(config.task),
        amount=amount,
        quote=shlex.quote,
    )


def _words(task: TaskConfig) -> list[str]:
    """The overrides with which fpt reads and answers a text as in the run; the user's own files stay unnamed."""
    is_own = task.train is not None
    words = ["task=files", "task.train=FILE.jsonl"] if is_own else [f"task={task.name}"]
    words += [f"task.{key}={getattr(task, key)}" for key in ("source", "target") if is_own]
    usual = compose.load(words).task
    for key in ANSWERED_WITH:
        if (value := getattr(task, key)) != getattr(usual, key):
            words.append(f"task.{key}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    return words


def card_of_tokens(prompts: Mapping[str, ExportRequest]) -> str:
    """Render the README.md of a checkpoint with prompts as tokens: the Hub's metadata, then text for people."""
    one = next(iter(prompts.values()))
    metrics = sorted({prompt.run.result["metric"]["name"] for prompt in prompts.values()})
    return _rendered(
        "tokens.md.jinja",
        {"library_name": "transformers", "tags": ["prompt-tuning", "soft-prompt", "fpt"], "metrics": metrics},
        prompts=prompts,
        model_name=model_name(one),
        examples={name: f"{written(name)} {source_of(prompt.run)}" for name, prompt in prompts.items()},
        longest=max(prompt.run.result["max_new_tokens"] for prompt in prompts.values()),
        versions=one.run.result["versions"],
        written=written,
        amount=amount,
    )


def _rendered(template: str, metadata: dict[str, Any], **facts: Any) -> str:
    """Render a card from a template; a fact that is missing is an error, not an empty text."""
    from huggingface_hub import ModelCardData
    from jinja2 import Environment, StrictUndefined

    text = (files(__package__) / template).read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined)
    return f"{environment.from_string(text).render(card_data=ModelCardData(**metadata).to_yaml(), **facts)}\n"


def source_of(run: Run) -> str:
    """Return an example source: the shortest in validation, or only the template if the data may be private."""
    config = next(iter(tasks_of(run.config).values()))
    task = config.task
    if data_of(config, rules_of(task)) in ("world", "hub"):
        inputs = [row["input"] for row in run.predictions if row.get("task", task.name) == task.name]
        return str(min(inputs, key=len))
    return task.source or task.template or f"a source, as fpt show task={task.name} prints it"


def model_name(request: ExportRequest) -> str:
    """Name the model for people, without naming a local folder."""
    model = request.run.config.model
    whole = f"fpt's embedded model {model.name}" if request.is_embedded else model.name
    if not request.is_local:
        whole = model.weights
    return whole if request.shape == request.full else f"a part of {whole}"
