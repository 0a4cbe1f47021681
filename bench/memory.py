"""Peak memory of updates, measured in a process of its own: `python -m bench.memory FOLDER LENGTH SHAPE…` (Linux).

A SHAPE is encoder blocks, decoder blocks, neurons, as in 2,2,256. With --standalone it is built by transformers alone
and trained by a plain loop; otherwise as fpt's stages are, one after the other in this process. Peaks are those of
resident memory, beyond what the process held before any weights; prints JSON, a list of bytes.
"""

import argparse
import gc
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bench.synthetic import PROMPT, open_backbone, part, standalone
from fpt.backbones.shapes import Shape, Stack
from fpt.config.schema import OptimConfig
from fpt.data.batches import Share
from fpt.data.encoded import Encoded, RaggedRows
from fpt.training.loop import step
from fpt.training.optimizer import make

BATCH = 16
TARGET = 3


def batch_of(length: int) -> Encoded:
    """BATCH random examples; every other one is a tenth shorter, so that there is something to mask."""
    random = torch.Generator().manual_seed(0)
    lengths = [length - (index % 2) * (length // 10) for index in range(BATCH)]
    sources = [torch.randint(5, 32_000, (count,), generator=random).tolist() for count in lengths]
    return Encoded(RaggedRows.of(sources), RaggedRows.of([[32_099, 4273, 1]] * BATCH))


def ours(folder: Path, data: Encoded, shape: Shape) -> None:
    """A stage's model, and two updates as the loop makes them."""
    model, optim = part(open_backbone(folder), shape), OptimConfig(name="adafactor", lr=0.3)
    optimizer = make(model.prompt.parameters(), optim)
    for _ in range(2):
        step(model, optimizer, Share.of(data, list(range(len(data)))), optim, torch.device("cpu"))


def plain(data: Encoded, shape: Shape) -> None:
    """Transformers' model of this shape and two updates of a prompt before it, by hand."""
    model = standalone(shape)
    prompt = torch.nn.Parameter(torch.randn(PROMPT, model.config.d_model))
    optimizer = make([prompt], OptimConfig(name="adafactor", lr=0.3))
    batch = data.batch(range(len(data)))
    mask = torch.cat([torch.ones(BATCH, PROMPT, dtype=torch.long), batch.mask], 1)
    for _ in range(2):
        embedded = torch.cat([prompt.expand(BATCH, -1, -1), model.get_input_embeddings()(batch.source)], 1)
        model(inputs_embeds=embedded, attention_mask=mask, labels=batch.labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def resident(key: str) -> int:
    """VmRSS or VmHWM, the peak, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def peak(work: Callable[[], None], before: int) -> int:
    """Bytes beyond `before` at the worst moment of `work`."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    work()
    return resident("VmHWM") - before


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("length", type=int)
    parser.add_argument("shapes", nargs="+")
    parser.add_argument("--standalone", action="store_true")
    options = parser.parse_args(arguments)
    data = batch_of(options.length)
    _ = torch.randn(256, 256) @ torch.randn(256, 256)  # what torch sets up once
    before, peaks = resident("VmRSS"), []
    for words in options.shapes:
        encoder, decoder, neurons = map(int, words.split(","))
        shape = Shape(Stack(encoder, neurons), Stack(decoder, neurons))
        if options.standalone:
            peaks.append(peak(lambda shape=shape: plain(data, shape), before))  # type: ignore[misc]
        else:
            peaks.append(peak(lambda shape=shape: ours(options.folder, data, shape), before))  # type: ignore[misc]
    print(json.dumps(peaks))


if __name__ == "__main__":
    main()
