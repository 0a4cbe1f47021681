"""The model card of what is exported: what it is for, what it scored, what it cost, and how to use it."""

import shlex
from typing import Any

from fpt.backbones import tiny
from fpt.backbones.shapes import Shape
from fpt.config.schema import TaskConfig
from fpt.sharing.export import ExportRequest, is_local
from fpt.sharing.markdown import table
from fpt.tasks.catalogue import data_of, rules_of
from fpt.units import amount

LIBRARIES = {"peft": "peft", "hf": "transformers"}
TASK_TYPE = "text2text-generation"
CONTENTS = {
    "fpt": "`prompt.safetensors`",
    "peft": "a PEFT adapter",
    "npy": "the array `prompt.npy`",
    "hf": "`prompt.safetensors`, beside the model it is for",
}


def text(made: ExportRequest) -> str:
    """README.md: the Hub's metadata, then words for people."""
    result, kind = made.run.result, made.run.config.prompt.kind
    parts = [
        f"---\n{_metadata(made)}\n---",
        f"# {result['task']}: a {kind} prompt for {_model_name(made)}",
        f"{_prompt(made)}, learned by prompt tuning with the schedule {result['schedule']} of fpt"
        f" {result['versions']['fpt']}, the model's own weights left as they are. This is {made.what}, as"
        f" {CONTENTS[made.to]}. Scores are between 0 and 100, correlations between -100 and 100.",
        table(("", ""), _facts(made)),
        "## Stages",
        "FLOPs are those of training; a stage's score is that of its last prompt, on its own model.",
        _stages(made),
        "## Use",
        f"```python\n{_snippet(made)}\n```" if kind == "soft" else f"```sh\n{_command(made)}\n```",
    ]
    if made.to == "peft" and is_local(made.base):
        parts += ["`adapter_config.json` names the folder that the model was in on the machine that wrote this."]
    return "\n\n".join(parts) + "\n"


def _prompt(made: ExportRequest) -> str:
    """What goes where."""
    prompt, width = made.run.config.prompt, made.values["d_model"]
    vectors = f"{prompt.length} vectors of {width} numbers"
    if prompt.kind == "soft":
        return f"{vectors} that go before the embedded input of {_model_name(made)}"
    source = "the same for every example" if prompt.generator == "none" else "made from each example's states there"
    return (
        f"{vectors}, {source}, that go before the states after encoder block {made.layer} of {_model_name(made)}"
        f" (late prompt tuning, {prompt.generator}, {prompt.num_learned(width):,} parameters)"
    )


def _command(made: ExportRequest) -> str:
    """What answers one source with a late prompt, for which other libraries have no place."""
    config = made.run.config
    model = "." if made.to == "hf" else "tiny" if made.base == str(tiny.FOLDER) else made.base
    words = ["prompt.file=prompt.safetensors", f"model={model}", *_task(config.task)]
    if made.to != "hf" and revision(made):
        words += [f"model.revision={revision(made)}"]
    if config.engine.dtype != "float32":
        words += [f"engine.dtype={config.engine.dtype}"]
    return f"fpt predict {shlex.join(words)} \\\n  {shlex.quote(f'text={_source(made)}')}"


def _task(task: TaskConfig) -> list[str]:
    """The task in the command's words; of a user's own files, which stay unnamed, with their templates."""
    if task.train is None:
        return [f"task={task.name}"]
    return ["task=files", "task.train=FILE", f"task.source={task.source}", f"task.target={task.target}"]


def _metadata(made: ExportRequest) -> str:
    """The card's head, without a licence, which is the user's to give."""
    from huggingface_hub import EvalResult, ModelCardData

    result, config = made.run.result, made.run.config
    source = rules_of(config.task).records
    is_from_hub = _data(made) == "hub"
    known: dict[str, Any] = {"datasets": [source.hub[0]]} if is_from_hub else {}  # generated ones have no name there
    if is_from_hub and made.number is None and config.task.valid_examples is None:
        known["model_name"] = f"{result['task']}-{result['model']}-{result['schedule']}"
        known["eval_results"] = [
            EvalResult(
                task_type=TASK_TYPE,
                dataset_type=source.hub[0],
                dataset_name=result["task"],
                dataset_config=next(iter(source.hub[1:]), None),
                dataset_split=source.split(config.task.valid_split).hub,
                metric_type=result["metric"]["name"],
                metric_value=result["metric"]["value"],
            )
        ]
    return ModelCardData(
        library_name=LIBRARIES.get(made.to),
        base_model=None if is_local(made.base) else made.base,
        tags=["prompt-tuning", f"{config.prompt.kind}-prompt", "fpt"],
        metrics=[result["metric"]["name"]],
        **known,
    ).to_yaml()


def _facts(made: ExportRequest) -> list[tuple[str, str]]:
    result, config = made.run.result, made.run.config
    metric, data = result["metric"]["name"], result["data"]
    rows = [
        ("task", f"{result['task']}, {data['train']:,} training and {data['validation']:,} validation examples"),
        ("data", _origin(made)),
        ("model", f"{_model_name(made)}, {_sized(made.shape)}"),
        ("schedule", f"{result['schedule']}, {len(result['stages'])} stages, seed {result['seed']}"),
    ]
    if made.number is None:
        rows += [("score", f"{metric} {result['metric']['value']:.2f}, {config.task.valid_split} split")]
    else:
        score = result["stages"][made.number - 1]["score"]
        rows += [("score", f"{metric} {score:.2f}, {config.task.valid_split} split, on this model")]
    if made.number is None and result.get("test") and result["test"]["metrics"]:
        rows += [("test score", f"{metric} {result['test']['metrics'][metric]:.2f}, {result['test']['split']} split")]
    rows += [("baseline", f"{metric} {result['majority']:.2f}, {result['baseline']}")]
    if result["untrained"] is not None:
        rows += [("untrained prompt", f"{metric} {result['untrained']:.2f}, on the whole model")]
    spent, vanilla = amount(result["flops"]), amount(result["flops_pt"])
    best = f", best after {result['best_update']:,}" if made.number is None else ""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return [
        *rows,
        ("updates", f"{result['updates']:,}{best}"),
        ("FLOPs", f"{spent}, {result['flops_ratio']:.1%} of vanilla prompt tuning's {vanilla}"),
        ("precision", f"model in {config.engine.dtype}, prompt in float32"),
        ("versions", versions),
    ]


def _stages(made: ExportRequest) -> str:
    result = made.run.result
    rows = [
        (
            str(number),
            f"{row['encoder_layers']} + {row['decoder_layers']}",
            f"{row['ffn']} / {row['decoder_ffn']}",
            f"{row['updates']:,}",
            amount(row["flops"]),
            f"{row['score']:.2f}",
        )
        for number, row in enumerate(result["stages"], 1)
    ]
    columns = ("stage", "blocks enc + dec", "FFN enc / dec", "updates", "FLOPs", result["metric"]["name"])
    return table(columns, rows)


def _snippet(made: ExportRequest) -> str:
    """Python that answers one source."""
    config = made.run.config
    dtype, longest = config.engine.dtype, made.run.result.get("max_new_tokens", config.task.target_length)
    imports = {"import torch", "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer"}
    if made.repo:
        imports |= {"from huggingface_hub import snapshot_download"}
    lines = [f'folder = snapshot_download("{made.repo}")' if made.repo else 'folder = "."  # where this card is']
    pinned = ""
    if made.to == "hf":
        lines += ["base = folder"]
    elif made.base == str(tiny.FOLDER):
        imports |= {"from fpt.backbones import tiny"}
        lines += ["base = tiny.FOLDER"]
    else:
        pinned = f", revision={revision(made)!r}" if revision(made) else ""
        lines += [f"base = {made.base!r}"]
    lines += [
        f"tokenizer = AutoTokenizer.from_pretrained(base{pinned})",
        f"model = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.{dtype}{pinned})",
    ]
    if made.to == "peft":
        imports |= {"from peft import PeftModel"}
        lines += ["model = PeftModel.from_pretrained(model, folder).eval()"]
    elif made.to == "npy":
        imports |= {"import numpy as np"}
        lines += ['prompt = torch.from_numpy(np.load(f"{folder}/prompt.npy"))']
    else:
        imports |= {"from safetensors.torch import load_file"}
        lines += ['prompt = load_file(f"{folder}/prompt.safetensors")["prompt"]']
    lines += ["", f"text = {_source(made)!r}", 'inputs = tokenizer(text, return_tensors="pt")']
    if made.to == "peft":
        lines += [f"output = model.generate(**inputs, max_new_tokens={longest})"]
    else:
        lines += [
            "embedded = model.get_input_embeddings()(inputs.input_ids)",
            "embedded = torch.cat([prompt[None].to(embedded.dtype), embedded], dim=1)",
            f"output = model.generate(inputs_embeds=embedded, max_new_tokens={longest})",
        ]
    lines += ["print(tokenizer.decode(output[0], skip_special_tokens=True))"]
    return "\n".join([*sorted(imports, key=lambda line: (line.startswith("from"), line)), "", *lines])


def revision(made: ExportRequest) -> str | None:
    """Of the run's model; another `base` has its own."""
    model = made.run.config.model
    return model.revision if made.base == model.weights else None


def _source(made: ExportRequest) -> str:
    """A source for the model: the shortest of validation, or its form where the data may be nobody else's business."""
    task = made.run.config.task
    if _data(made) in ("world", "hub"):
        return str(min((row["input"] for row in made.run.predictions), key=len))
    return task.source or task.template or f"a source, as fpt show task={task.name} prints it"


def _data(made: ExportRequest) -> str:
    config = made.run.config
    return data_of(config, rules_of(config.task))


def _origin(made: ExportRequest) -> str:
    """Where the data are from; a folder of this machine says nothing elsewhere."""
    data, source = _data(made), rules_of(made.run.config.task).records
    return {"world": "generated by fpt", "hub": source.describe("hub")}.get(data, "local files")


def _model_name(made: ExportRequest) -> str:
    """The model's name in the words of people; a folder of this machine says nothing elsewhere."""
    config = made.run.config.model
    whole = config.name if is_local(config.weights) else config.weights
    if config.weights == "embedded":
        whole = f"fpt's embedded model {config.name}"
    return whole if made.is_whole else f"a part of {whole}"


def _sized(shape: Shape) -> str:
    encoder, decoder = shape.encoder, shape.decoder
    return (
        f"{encoder.blocks} encoder blocks of {encoder.neurons} FFN neurons,"
        f" {decoder.blocks} decoder blocks of {decoder.neurons}"
    )
