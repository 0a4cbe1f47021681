"""The model card of what is exported: what goes into it; `card.md.jinja` says how it reads."""

import shlex
from importlib.resources import files
from typing import Any

from fpt.prompts.kinds import kind_of
from fpt.sharing.export import ExportRequest, is_local
from fpt.tasks.catalogue import data_of, rules_of
from fpt.units import amount

LIBRARIES = {"peft": "peft", "hf": "transformers"}
TASK_TYPE = "text2text-generation"


def text(request: ExportRequest) -> str:
    """README.md: the Hub's metadata, then words for people."""
    from huggingface_hub import ModelCard, ModelCardData

    kind = kind_of(request.run.config.prompt)
    card = ModelCard.from_template(
        ModelCardData(**_metadata(request)),
        template_str=(files(__package__) / "card.md.jinja").read_text(encoding="utf-8"),
        request=request,
        model_name=_model_name(request),
        data=_data(request),
        records=rules_of(request.run.config.task).records,
        source=_source(request),
        kind=kind,
        described=kind.described(request.values["d_model"], request.layer, _model_name(request)),
        command=None if kind.is_input else _command(request),
        is_local=is_local(request.base),
        amount=amount,
    )
    return f"{card}\n"


def _metadata(request: ExportRequest) -> dict[str, Any]:
    """The card's head, without a licence, which is the user's to give."""
    from huggingface_hub import EvalResult

    result, config = request.run.result, request.run.config
    metadata = {
        "library_name": LIBRARIES.get(request.to),
        "base_model": None if is_local(request.base) else request.base,
        "tags": ["prompt-tuning", f"{config.prompt.kind}-prompt", "fpt"],
        "metrics": [result["metric"]["name"]],
    }
    if _data(request) != "hub":  # generated data have no name there
        return metadata
    records = rules_of(config.task).records
    metadata["datasets"] = [records.hub[0]]
    if request.number is None and config.task.valid_examples is None:
        metadata["model_name"] = f"{result['task']}-{result['model']}-{result['schedule']}"
        metadata["eval_results"] = [
            EvalResult(
                task_type=TASK_TYPE,
                dataset_type=records.hub[0],
                dataset_name=result["task"],
                dataset_config=next(iter(records.hub[1:]), None),
                dataset_split=records.split(config.task.valid_split).hub,
                metric_type=result["metric"]["name"],
                metric_value=result["metric"]["value"],
            )
        ]
    return metadata


def _command(request: ExportRequest) -> str:
    """What answers one source with a prompt for which other libraries have no place."""
    config, task = request.run.config, request.run.config.task
    model = "." if request.to == "hf" else "tiny" if request.is_embedded else request.base
    words = ["prompt.file=prompt.safetensors", f"model={model}"]
    if task.train is None:
        words += [f"task={task.name}"]
    else:  # the user's own files stay unnamed
        words += ["task=files", "task.train=FILE", f"task.source={task.source}", f"task.target={task.target}"]
    if request.to != "hf" and request.revision:
        words += [f"model.revision={request.revision}"]
    if config.engine.dtype != "float32":
        words += [f"engine.dtype={config.engine.dtype}"]
    return f"fpt predict {shlex.join(words)} \\\n  {shlex.quote(f'text={_source(request)}')}"


def _source(request: ExportRequest) -> str:
    """A source for the model: the shortest of validation, or its form where the data may be nobody else's business."""
    task = request.run.config.task
    if _data(request) in ("world", "hub"):
        return str(min((row["input"] for row in request.run.predictions), key=len))
    return task.source or task.template or f"a source, as fpt show task={task.name} prints it"


def _data(request: ExportRequest) -> str:
    config = request.run.config
    return data_of(config, rules_of(config.task))


def _model_name(request: ExportRequest) -> str:
    """The model's name in the words of people; a folder of this machine says nothing elsewhere."""
    config = request.run.config.model
    whole = config.name if is_local(config.weights) else config.weights
    if config.weights == "embedded":
        whole = f"fpt's embedded model {config.name}"
    return whole if request.is_whole else f"a part of {whole}"
