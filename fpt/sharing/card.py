"""The model card of what is exported: what goes into it; `card.md.jinja` says how it reads."""

import shlex
from importlib.resources import files
from typing import Any

from fpt.backbones.shapes import read_sizes
from fpt.prompts.kinds import kind_of
from fpt.runs.run import Run
from fpt.sharing.export import ExportRequest, is_local
from fpt.tasks.catalogue import data_of, rules_of
from fpt.tasks.origins import Origin
from fpt.tasks.splits import is_drawn, name_of_validation
from fpt.tasks.task import MASK
from fpt.units import amount


def text(request: ExportRequest) -> str:
    """README.md: the Hub's metadata, then words for people."""
    from huggingface_hub import ModelCard, ModelCardData

    config = request.run.config
    kind, rules = kind_of(config.prompt), rules_of(config.task)
    data = data_of(config, rules)
    card = ModelCard.from_template(
        ModelCardData(**_metadata(request, data, rules.records)),
        template_str=(files(__package__) / "card.md.jinja").read_text(encoding="utf-8"),
        request=request,
        model_name=model_name(request),
        data=data,
        records=rules.records,
        source=source_of(request.run).replace(MASK, request.row.reads.sentinel or MASK),
        kind=kind,
        width=read_sizes(request.values, "").width,
        described=kind.described(read_sizes(request.values, "").width, request.layer, model_name(request)),
        is_local=is_local(request.base),
        amount=amount,
        name_of_validation=name_of_validation,
        quote=shlex.quote,
    )
    return f"{card}\n"


def _metadata(request: ExportRequest, data: str, records: Origin) -> dict[str, Any]:
    """The card's head, without a licence, which is the user's to give."""
    from huggingface_hub import EvalResult

    result, config = request.run.result, request.run.config
    metadata = {
        "library_name": {"peft": "peft", "hf": "transformers"}.get(request.to),
        "base_model": None if is_local(request.base) else request.base,
        "tags": ["prompt-tuning", f"{config.prompt.kind}-prompt", "fpt"],
        "metrics": [result["metric"]["name"]],
    }
    if data != "hub" or is_drawn(config.task):  # generated data have no name there
        return metadata
    metadata["datasets"] = [records.hub[0]]
    if request.number is None and config.task.valid_examples is None and config.task.valid_split in records.splits:
        metadata["model_name"] = f"{result['task']}-{result['model']}-{result['schedule']}"
        metadata["eval_results"] = [
            EvalResult(
                task_type="text2text-generation",
                dataset_type=records.hub[0],
                dataset_name=result["task"],
                dataset_config=next(iter(records.hub[1:]), None),
                dataset_split=records.split(config.task.valid_split).hub,
                metric_type=result["metric"]["name"],
                metric_value=result["metric"]["value"],
            )
        ]
    return metadata


def source_of(run: Run) -> str:
    """A source for the model: the shortest of validation, or its form where the data may be nobody else's business."""
    if data_of(run.config, rules_of(run.config.task)) in ("world", "hub"):
        return str(min((row["input"] for row in run.predictions), key=len))
    task = run.config.task
    return task.source or task.template or f"a source, as fpt show task={task.name} prints it"


def model_name(request: ExportRequest) -> str:
    """The model's name in the words of people; a folder of this machine says nothing elsewhere."""
    config = request.run.config.model
    whole = config.name if is_local(config.weights) else config.weights
    if config.weights == "embedded":
        whole = f"fpt's embedded model {config.name}"
    return whole if request.is_whole else f"a part of {whole}"
