"""A map of a model's parts: the loss that each leaves of a text, beside its share of the model's FLOPs.

`python -m bench.parts MODEL`, a name or a folder as in model=, maps plain sentences. With `--run RUN` it maps the
training examples of a finished run under its prompt as it started and as it ended, and says how alike the gradients of
part and whole are: one that points elsewhere teaches the prompt nothing for the whole. Without MODEL the rows that are
kept in bench/results/parts.jsonl are printed as tables, with `--picture` as docs/parts.svg.

What blocks and neurons are chosen by is measured on the text itself.
"""

import argparse
import json
from collections.abc import Iterator
from functools import partial as applied
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.parts.picture import drawn
from bench.parts.text import Kept, Text
from bench.parts.ways import WAYS
from bench.records import RESULTS, read_rows
from bench.runs import table
from fpt import random_streams
from fpt.backbones.backbone import Backbone, open_backbone
from fpt.backbones.shapes import Shape, Stack
from fpt.config import compose
from fpt.config.schema import EngineConfig
from fpt.data.encoded import Encoded, RaggedRows
from fpt.devices.engine import Engine
from fpt.pricing.flops import price_of
from fpt.prompts.files import initial
from fpt.prompts.kinds import TENSOR
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.readers import prompted_model
from fpt.runs.files import replace_file
from fpt.runs.progress import Progress, quiet_libraries
from fpt.runs.run import open_run
from fpt.tasks.opening import open_task
from stages import partial
from stages.inputs import open_inputs
from stages.selection import everything

FILE, SENTENCES = RESULTS / "parts.jsonl", Path(__file__).with_name("sentences.txt")
DEPTHS, WIDTHS = (0.97, 0.9, 0.8, 0.7, 0.5, 0.25), (0.75, 0.5, 0.25)
SEARCHED = 0.5  # leaving out one block at a time is searched down to so many
EXAMPLES, FITTED = 24, 200  # of a run: those that are mapped, and others that bridges are fitted to
SEARCHES = ("gap", "alone", "loss")  # made on sentences alone, as they take hundreds of passes
SOURCE, TARGET = 60, 2  # tokens of the update whose FLOPs are compared: 20 vectors, a question; a word
Row = dict[str, Any]


def sentences(backbone: Backbone, body: Any) -> Text:
    """Plain sentences, under no prompt, each behind the token that texts begin with."""
    start = backbone.tokenizer.bos_token_id
    rows = [backbone.tokenizer(line, add_special_tokens=False).input_ids for line in SENTENCES.read_text().splitlines()]
    nothing = SoftPrompt(torch.zeros(0, backbone.sizes.width))
    return Text(
        "sentences", prompted_model(body, nothing), Encoded(RaggedRows.of([[start]] * len(rows)), RaggedRows.of(rows))
    )


def of_run(folder: Path, body: Any) -> Iterator[tuple[Text, Text]]:
    """A run's training examples under its prompts: some to map, and others to fit bridges to."""
    config = compose.load([], base=open_run(folder).config)
    inputs = open_inputs(config, open_task(config), Progress())
    started = initial(config.prompt, inputs.backbone, labels=inputs.task.labels, seed=config.seed)
    for when, tensors in (("started", started), ("ended", load_file(folder / "prompt.safetensors"))):
        model, name = prompted_model(body, SoftPrompt(tensors[TENSOR])), f"{config.task.name}, prompt as it {when}"
        few, more = (
            inputs.train.taken(random_streams.drawn(len(inputs.train), *how, "importance"))
            for how in ((EXAMPLES, 0), (FITTED, 1))
        )
        yield Text(name, model, few), Text(name, model, more)


def mapped(text: Text, fitted: Text | None) -> Iterator[Row]:
    """The rows of a text: what is left out of the model, the loss, and the cosine of the gradients."""
    total = len(text.blocks)
    whole = tuple(range(total))
    loss, gradient = text.loss(whole)

    def worth(kept: Kept, bridge: nn.Module | None = None) -> Row:
        loss, own = text.loss(kept, bridge)
        return {"loss": round(loss, 3), **({"cosine": round(cosine(own, gradient), 3)} if len(own) else {})}

    yield {"way": "whole", "kept": total, "loss": round(loss, 3)}
    for width in WIDTHS:
        for by in ("activity", "variance"):
            with text.narrow(width, by=by):
                yield {"way": f"neurons by {by}", "kept": total, "width": width, **worth(whole)}
    for number in sorted({round(depth * total) for depth in DEPTHS}, reverse=True):
        for way, choose in WAYS.items():
            if (fitted and way in SEARCHES) or (way == "loss" and number < SEARCHED * total):
                continue
            kept = choose(text, number)
            out = [block for block in whole if block not in kept]
            row = {"way": way, "kept": number, "out": out}
            yield {**row, **worth(kept)}
            if fitted and way == "outer":
                yield {**row, "way": "outer, bridged", **worth(kept, fitted.bridge(out[0], out[-1] + 1))}


def cosine(one: Tensor, other: Tensor) -> float:
    """The cosine of the angle between two gradients."""
    return float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def measure(name: str, run: Path | None) -> None:
    """Map a model, and keep the rows in place of its earlier ones of the same texts."""
    engine = Engine(EngineConfig(name="torch", device="cpu", dtype="bfloat16"), torch.device("cpu"))
    backbone = open_backbone(compose.load([f"model={name}"]).model)
    body = partial.build(backbone, everything(backbone.shape), engine)
    cost = applied(price_of(backbone.config).update, source=SOURCE, target=TARGET)
    for text, fitted in of_run(run, body) if run else [(sentences(backbone, body), None)]:
        about = {"model": Path(name).name, "text": text.name}
        rows = [row for row in kept_rows() if {key: row[key] for key in about} != about]
        for row in mapped(text, fitted):
            part = Stack(row["kept"], round(row.get("width", 1) * backbone.shape.source.neurons))
            share = cost(Shape(**{**backbone.shape, next(iter(backbone.shape)): part})) / cost(backbone.shape)
            rows.append({**about, **row, "flops": round(share, 4)})
            print(json.dumps(rows[-1]), flush=True)
        replace_file(FILE, "".join(f"{json.dumps(row)}\n" for row in rows).encode())


def kept_rows() -> list[Row]:
    """The rows that earlier calls have measured."""
    return read_rows(FILE)


def printed(rows: list[Row]) -> str:
    """A table for each model and text: at every share of the FLOPs the loss that each way leaves, and the cosine."""
    parts = []
    for about in dict.fromkeys((row["model"], row["text"]) for row in rows):
        own = [row for row in rows if (row["model"], row["text"]) == about]
        shares = sorted({row["flops"] for row in own}, reverse=True)
        cells = {(row["way"], row["flops"]): f"{row['loss']:.2f}{_in_brackets(row)}" for row in own}
        ways = dict.fromkeys(row["way"] for row in own)
        lines = [[way, *(cells.get((way, share), "") for share in shares)] for way in ways]
        parts.append(table([", ".join(about), *(f"{share:.0%}" for share in shares)], lines))
    return "\n".join(parts)


def _in_brackets(row: Row) -> str:
    return f" ({row['cosine']:.2f})" if "cosine" in row else ""


def main() -> None:
    """Measure a model's parts, or print what was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.parts", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", help="what to map, as in model=; without it, rows are printed")
    parser.add_argument("--run", type=Path, help="map a finished run's training examples, under its soft prompt")
    parser.add_argument("--picture", action="store_true", help="print a picture in place of a table")
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    if options.model:
        measure(options.model, options.run)
    else:
        print(drawn(kept_rows()) if options.picture else printed(kept_rows()), end="")


if __name__ == "__main__":
    main()
