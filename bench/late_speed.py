"""Updates of a late prompt against a soft one's: `python -m bench.late_speed [--rounds 2] [--json FILE]`.

A random T5 1.1 of T5-small's shape, 20 soft vectors against five late ones (npg, after half of the encoder), the states
below them computed with every update or kept. Sides take turns, times are medians; peaks are of resident memory, each
side in a process of its own (Linux).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fpt.runs.progress import quiet_libraries

quiet_libraries()

import torch  # noqa: E402
from rich.console import Console  # noqa: E402

from bench import clock  # noqa: E402
from bench.memory import batch_of, peak, resident  # noqa: E402
from bench.speed import BATCH, CPU, EPOCH, LENGTH, SMALL, TIMED, in_turns, our_batches, table  # noqa: E402
from bench.synthetic import (  # noqa: E402
    LENGTHS,
    PROMPT,
    config_of,
    examples,
    open_backbone,
    strata,
    untrained,
    write_backbone,
)
from fpt.backbones.backbone import Backbone  # noqa: E402
from fpt.config.schema import EngineConfig, OptimConfig, PromptConfig  # noqa: E402
from fpt.data.batches import Share  # noqa: E402
from fpt.data.encoded import Encoded, RaggedRows  # noqa: E402
from fpt.devices.engine import Engine  # noqa: E402
from fpt.pricing.flops import Price  # noqa: E402
from fpt.prompts.kinds import kind_of  # noqa: E402
from fpt.prompts.readers import prompted_model  # noqa: E402
from fpt.training.loop import step  # noqa: E402
from fpt.training.optimizer import make  # noqa: E402
from stages import partial as parts  # noqa: E402
from stages import selection  # noqa: E402
from stages.kept_states import states_below  # noqa: E402

Record = dict[str, Any]
HOW = PromptConfig(kind="late", length=5)
LATE = kind_of(HOW)
SIDES = ("soft", "late", "late, states kept")
LATE_OPTIM = OptimConfig(name="adamw", lr=1e-3, weight_decay=0.1)
UPDATES = 2  # after which a peak is read


class Side:
    """One kind of prompt on the frozen model."""

    def __init__(self, backbone: Backbone, name: str) -> None:
        """One of SIDES."""
        body = parts.build(backbone, selection.everything(backbone.shape))
        layer = LATE.position(backbone.shape.encoder.blocks)
        tensors = LATE.initial(backbone, labels=(), seed=0)
        prompt = untrained(backbone) if name == "soft" else LATE.build(tensors, layer)
        self.optim = OptimConfig(name="adafactor", lr=0.3) if name == "soft" else LATE_OPTIM
        self.model, self.is_kept = prompted_model(body, prompt), name == SIDES[2]
        self._optimizer = make(self.model.prompt.parameters(), self.optim)

    def inputs(self, data: Encoded) -> Encoded:
        """The data as this side trains on them."""
        if not self.is_kept:
            return data
        engine = Engine(EngineConfig(name="torch", dtype="float32"), CPU)
        states = states_below(self.model, data, BATCH, engine, lambda batches, _: batches)
        return replace(data, below=states)

    def seconds(self, data: Encoded, batches: Sequence[list[int]]) -> float:
        """Train on these batches, one update each."""
        start = clock.now()
        for indices in batches:
            step(self.model, self._optimizer, Share.of(data, indices), self.optim, CPU)
        return clock.now() - start


def speeds(rounds: int) -> list[Record]:
    """Examples per second of each side at each data set's lengths, beside FLOPs."""
    with tempfile.TemporaryDirectory() as folder:
        backbone = write_backbone(SMALL, Path(folder))
        sides = {name: Side(backbone, name) for name in SIDES}
        return [row for task in LENGTHS for row in _speeds_of(task, sides, rounds)]


def _speeds_of(task: str, sides: dict[str, Side], rounds: int) -> list[Record]:
    everything = examples(LENGTHS[task], EPOCH)
    chosen = strata(our_batches(everything), everything, TIMED[task])
    data = _only(everything, [one for indices in chosen for one in indices])
    batches = [list(range(start, start + BATCH)) for start in range(0, len(data), BATCH)]
    inputs = {name: side.inputs(data) for name, side in sides.items()}
    for name, side in sides.items():
        side.seconds(inputs[name], batches[:1])  # warm
    seconds = in_turns(rounds, {name: partial(side.seconds, inputs[name], batches) for name, side in sides.items()})
    flops = {name: sum(_flops(name, data.padded_size(indices)) for indices in batches) for name in sides}
    return [
        {
            "task": task,
            "side": name,
            "examples_s": len(data) / seconds[name],
            "faster": seconds["soft"] / seconds[name],
            "flops": flops[name] / flops["soft"],
        }
        for name in sides
    ]


def _only(data: Encoded, indices: Sequence[int]) -> Encoded:
    sources, targets = (RaggedRows.of(rows[index] for index in indices) for rows in (data.sources, data.targets))
    return Encoded(sources, targets)


def _flops(side: str, size: tuple[int, int, int]) -> int:
    batch, source, target = size
    price, below = Price(config_of(SMALL)), LATE.position(SMALL.encoder.blocks)
    if side == "soft":
        return batch * price.update(SMALL, source=PROMPT + source, target=target)
    length, is_kept = HOW.length + source, side == SIDES[2]
    return batch * price.update(SMALL, source=length, target=target, below=below, prompt=HOW, is_kept=is_kept)


def peaks() -> dict[str, int]:
    """Bytes that updates of 16 examples of LENGTH source tokens add to what a process holds before any weights."""
    with tempfile.TemporaryDirectory() as folder:
        write_backbone(SMALL, Path(folder))
        command = [sys.executable, "-m", "bench.late_speed", "--peak", folder]
        return {
            name: int(subprocess.run([*command, name], check=True, capture_output=True, text=True).stdout)
            for name in SIDES
        }


def peak_of(folder: Path, name: str) -> int:
    """One side's, in this process."""
    data = batch_of(LENGTH)
    _ = torch.randn(256, 256) @ torch.randn(256, 256)  # what torch sets up once

    def work() -> None:
        side = Side(open_backbone(folder), name)
        side.seconds(side.inputs(data), [list(range(len(data)))] * UPDATES)

    return peak(work, resident("VmRSS"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.late_speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.peak:
        print(peak_of(Path(options.peak[0]), options.peak[1]))
        return
    rows, memory = speeds(options.rounds), peaks()
    if options.json:
        options.json.write_text(json.dumps({"speeds": rows, "peaks": memory}, indent=2) + "\n")
    columns = ("lengths of", "prompt", "examples/s", "against soft", "FLOPs against soft")
    cells = [
        (row["task"], row["side"], f"{row['examples_s']:.2f}", f"{row['faster']:.2f} x", f"{row['flops']:.1%}")
        for row in rows
    ]
    console = Console(width=120)
    console.print(table(columns, cells))
    held = [(name, f"{size / 1e6:,.0f} MB", f"{size / memory['soft']:.2f} x") for name, size in memory.items()]
    console.print(table(("prompt", "peak memory", "against soft"), held))


if __name__ == "__main__":
    main()
