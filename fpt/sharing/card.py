"""Renders exports' model cards: collects the facts that `card.md.jinja` and `tokens.md.jinja` put into words."""

import json
import shlex
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fpt.backbones.shapes import read_sizes
from fpt.config import compose
from fpt.config.schema import TaskConfig
from fpt.prompts.kinds import kind_of
from fpt.runs.run import Run
from fpt.sharing.export import ExportRequest, written
from fpt.tasks.catalogue import data_of, rules_of
from fpt.tasks.task import MASK
from fpt.units import amount

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


def of_prompt(request: ExportRequest) -> str:
    """Render an export's README.md: the Hub's metadata, without a licence, which the user must add, then text."""
    config = request.run.config
    kind, rules = kind_of(config.prompt), rules_of(config.task)
    data, width = data_of(config, rules), read_sizes(request.values, "").width
    return _rendered(
        "card.md.jinja",
        {
            "library_name": {"peft": "peft", "hf": "transformers"}.get(request.to),
            "base_model": None if request.is_local else request.base,
            "tags": ["prompt-tuning", f"{kind.name}-prompt", "fpt"],
            "metrics": [request.run.result["metric"]["name"]],
            "datasets": [rules.records.hub[0]] if data == "hub" else None,
        },
        request=request,
        model_name=model_name(request),
        data=data,
        records=rules.records,
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


def of_tokens(prompts: Mapping[str, ExportRequest]) -> str:
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
    if data_of(run.config, rules_of(run.config.task)) in ("world", "hub"):
        return str(min((row["input"] for row in run.predictions), key=len))
    task = run.config.task
    return task.source or task.template or f"a source, as fpt show task={task.name} prints it"


def model_name(request: ExportRequest) -> str:
    """Name the model for people, without naming a local folder."""
    model = request.run.config.model
    whole = f"fpt's embedded model {model.name}" if request.is_embedded else model.name
    if not request.is_local:
        whole = model.weights
    return whole if request.shape == request.full else f"a part of {whole}"
