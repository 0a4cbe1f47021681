"""Describes and prints what `fpt show` shows: a task's data as the model sees them, or what a soft prompt learned."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text
from torch.nn.functional import cosine_similarity

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.backbones.location import config_values
from fpt.cli.tables import Output
from fpt.config.run_config import RunConfig
from fpt.data.encoded import Encoded
from fpt.data.encoding import check_labels, lost_targets, tokenised
from fpt.data.tokens import Tokens, tokens_of
from fpt.errors import UserError
from fpt.prompts.kinds import TENSOR, kind_of
from fpt.prompts.nearest import nearest
from fpt.runs.progress import WithBar
from fpt.runs.run import Run
from fpt.tasks.answers import COMMA, NONE
from fpt.tasks.task import SENTINEL, Example, Task
from stages import resolve
from stages.using.learned import from_run

UNKNOWN = 8  # how many unknown characters are listed
QUANTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "longest": 1.0}


def described_task(config: RunConfig, task: Task, number: int, with_bar: WithBar) -> dict[str, Any]:
    """The task's splits in numbers, and `number` training examples evenly spread over the split."""
    backbone = open_backbone(config.model, with_weights=False)
    tokens = tokens_of(task, backbone, config.task)
    parts = dict(zip(task.parts, tokenised(task, tokens, config.task, with_bar), strict=True))
    train, number = parts["train"], min(number, len(task.train))
    return {
        "task": task.name,
        "origin": task.origin,
        "model": config.model.name,
        "metric": task.metric,
        "baseline": {"name": task.baseline_name, "score": task.majority},
        "labels": list(task.labels),
        "class_weights": dict(task.class_weights),
        "limits": {"source": config.task.source_length, "target": config.task.target_length},
        "notes": [*task.notes, *_notes(config, task, tokens)],
        "skipped": list(task.skipped),
        "splits": [_split(name, examples, parts[name], task, backbone) for name, examples in task.parts.items()],
        "examples": [
            _example(task.train[index], index, train, backbone)
            for index in (position * len(task.train) // number for position in range(number))
        ],
    }


def _notes(config: RunConfig, task: Task, tokens: Tokens) -> list[str]:
    """Why training would be refused or useless: the model does not suit the task, or its tokenizer the texts."""
    try:
        resolve.check(config, *config_values(config.model))
        if task.labels:
            check_labels(task, tokens, chosen=tokens.row.reads.chooses(config.task.answer))
    except UserError as error:
        return [str(error)]
    return lost_targets(task, tokens)


def _split(name: str, examples: Sequence[Example], data: Encoded, task: Task, backbone: Backbone) -> dict[str, Any]:
    """A split in numbers; those of labels and targets are None if it has none."""
    assert data.whole is not None
    answered = bool(examples[0].golds)
    golds = [example.golds[0] for example in examples] if answered and task.labels else []
    labels = (*task.labels, NONE) if task.multilabel else task.labels
    counts = Counter(label for gold in golds for label in (gold.split(COMMA) if task.multilabel else [gold]))
    sources, targets = data.num_cut
    return {
        "name": name,
        "examples": len(examples),
        "labels": {label: counts[label] for label in labels} if answered else None,
        "source_tokens": _quantiles(data.whole[:, 0]),
        "target_tokens": _quantiles(data.whole[:, 1]) if answered else None,
        "unknown": _unknown(examples, backbone),
        "cut_sources": sources,
        "cut_targets": targets,
    }


def _unknown(examples: Sequence[Example], backbone: Backbone) -> dict[str, int]:
    """Counts of the characters in sources and targets that the tokenizer does not know, the most frequent first."""
    tokenizer, counts = backbone.tokenizer, Counter[str]()
    for example in examples:
        counts.update(example.marked("").source)
        counts.update(example.target.removeprefix(SENTINEL))
    characters = [character for character in counts if not character.isspace()]
    ids = tokenizer(characters, add_special_tokens=False)["input_ids"] if characters else []
    unknown = {one for one, own in zip(characters, ids, strict=True) if tokenizer.unk_token_id in own}
    return {character: count for character, count in counts.most_common() if character in unknown}


def _quantiles(lengths: "np.ndarray[Any, np.dtype[np.int32]]") -> dict[str, int]:
    """The QUANTILES of lengths in tokens, before cutting."""
    return {name: int(np.quantile(lengths, share, method="inverted_cdf")) for name, share in QUANTILES.items()}


def _example(example: Example, index: int, data: Encoded, backbone: Backbone) -> dict[str, Any]:
    assert data.whole is not None
    tokens = backbone.tokenizer.convert_ids_to_tokens
    return {
        "id": example.id,
        "source": example.source,
        "source_tokens": tokens(data.sources[index]),
        "cut": int(data.whole[index, 0]) - len(data.sources[index]),
        "target": example.target if backbone.family.row.reads.sentinel else example.target.removeprefix(SENTINEL),
        "target_tokens": tokens(data.targets[index]),
        "golds": list(example.golds),
    }


def print_task(look: dict[str, Any]) -> None:
    """Print a task's splits in numbers, then examples as the model sees them."""
    output = Output()
    baseline = f"{look['baseline']['name']} scores {look['baseline']['score']:.2f}"
    output.say(
        f"{look['task']} ({look['origin']}), in tokens of {look['model']}; main metric {look['metric']}, {baseline}"
    )
    for note in look["notes"]:
        output.say(note)
    output.say()
    weights = {f"'{label}'": f"{look['class_weights'].get(label, 0):.3g}" for label in look["labels"]}
    weighing = [{"split": "weights", "examples": "", **weights}] if look["class_weights"] else []
    output.show([*map(_labels, look["splits"]), *weighing], words="split")
    output.say()
    output.show((row for split in look["splits"] for row in _lengths(split, look)), words="tokens of")
    for split in look["splits"]:
        if unknown := split["unknown"]:
            most = ", ".join(f"{character} ({count:,})" for character, count in list(unknown.items())[:UNKNOWN])
            output.say(f"{split['name']}: {len(unknown):,} characters that the tokenizer does not know, as {most}")
    for example in look["examples"]:
        _print_example(output, example)


def _labels(split: dict[str, Any]) -> dict[str, str]:
    """A split's row of counts: all its examples, and those of each label."""
    labels = {f"'{label}'": _share(count, split) for label, count in (split["labels"] or {}).items()}
    return {"split": split["name"], "examples": f"{split['examples']:,}", **labels}


def _lengths(split: dict[str, Any], look: dict[str, Any]) -> Iterator[dict[str, str]]:
    """A split's rows of lengths in tokens, and how many texts are cut."""
    for side in ("source", "target") if split["target_tokens"] else ("source",):
        yield {
            "tokens of": f"{split['name']} {side}s",
            "limit": f"{look['limits'][side]:,}",
            **{name: f"{number:,}" for name, number in split[f"{side}_tokens"].items()},
            "cut": _share(split[f"cut_{side}s"], split),
        }


def _share(count: int, split: dict[str, Any]) -> str:
    return f"{count:,} ({count / split['examples']:.1%})"


def _print_example(output: Output, example: dict[str, Any]) -> None:
    """Print an example's texts and tokens, each in a row."""
    cut = f" ({example['cut']:,} more cut)" if example["cut"] else ""
    lengths = f"{len(example['source_tokens']):,} source tokens{cut}, {len(example['target_tokens']):,} target tokens"
    output.say(f"\n{example['id']}: {lengths}", "bold")
    rows = Table.grid(padding=(0, 2))
    for side in ("source", "target"):
        rows.add_row(side, Text(example[side]))
        rows.add_row("tokens", Text(" ".join(example[f"{side}_tokens"]).replace("\n", "\\n"), style="cyan"))
    rows.add_row("gold", Text(" | ".join(gold or "∅" for gold in example["golds"])))
    output.print(rows)


def described_prompt(run: Run, config: RunConfig, stage: int | None, number: int) -> dict[str, Any]:
    """A run's best prompt, or a stage's last one: its vectors, each with its `number` nearest vocabulary items."""
    learned, backbone = from_run(run, stage), open_backbone(config.model)
    if TENSOR not in learned.tensors:
        kind, sizes = kind_of(learned.config), backbone.sizes
        what = kind.described(sizes.width, kind.position(backbone.shape.source.blocks), config.model.name)
        raise UserError(f"{learned.name}: has {what}; only a soft prompt's vectors stand among the embeddings")
    learned.selection(backbone)  # refuses another model
    prompts = [run.prompt(one) for one in run.stages]
    return {
        "run": str(run.path),
        "model": config.model.name,
        "stage": stage,
        **nearest(learned.tensors[TENSOR], backbone, number),
        # For every two stages the mean cosine of the corresponding vectors of their prompts.
        "similarity": [[cosine_similarity(one, other).mean().item() for other in prompts] for one in prompts],
    }


def print_prompt(view: dict[str, Any]) -> None:
    """Print a prompt's vectors, each with its nearest vocabulary items, and how alike the stages' prompts are."""
    output, typical, similarity = Output(), view["typical_norm"], view["similarity"]
    which = "best prompt" if view["stage"] is None else f"prompt of stage {view['stage']}"
    output.say(
        f"{view['run']}: the {which}; norms, of which an embedding of {view['model']} has {typical:.3g} (the median),"
        " and the nearest vocabulary items by cosine"
    )
    output.show(
        (
            {
                "vector": str(number),
                "norm": f"{vector['norm']:.3g}",
                "nearest": "  ".join(f"{item['token']} {item['cosine']:.2f}" for item in vector["nearest"]),
            }
            for number, vector in enumerate(view["vectors"], 1)
        ),
        words="nearest",
    )
    if len(similarity) > 1:
        output.say("\nsimilarity of the stages' prompts: the mean cosine of corresponding vectors")
        output.show(
            {"stage": str(number), **{str(other): f"{value:.3f}" for other, value in enumerate(row, 1)}}
            for number, row in enumerate(similarity, 1)
        )
