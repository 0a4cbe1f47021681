"""How fast and how small training is, as ratios on this machine: `python -m bench.speed [--only update,schedule,…]`.

update: an update of ours against PEFT's in transformers' Trainer. schedule: whole schedules against vanilla prompt
tuning, beside their FLOPs. padding: the share of positions that are padding. memory: a stage's peak against what its
model needs. start: seconds from the command to the first update. Meant for ten minutes on two idle cores; nothing is
written without --json. Sides take turns within a round, and ratios are of medians over the rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from fpt.runs.progress import quiet_libraries

quiet_libraries()

import torch  # noqa: E402

from bench import clock  # noqa: E402
from bench.clock import now  # noqa: E402
from bench.synthetic import LENGTHS, PROMPT, config_of, examples, part, standalone, strata, write_backbone  # noqa: E402
from bench.trainer import PeftSide  # noqa: E402
from fpt.backbones.shapes import Shape, Stack  # noqa: E402
from fpt.config import compose  # noqa: E402
from fpt.config.schema import OptimConfig  # noqa: E402
from fpt.data.batches import Share, UpdateOrder  # noqa: E402
from fpt.data.encoded import Encoded  # noqa: E402
from fpt.pricing.flops import Price  # noqa: E402
from fpt.prompts.prompted import PromptedModel  # noqa: E402
from fpt.training.loop import step  # noqa: E402
from fpt.training.optimizer import make  # noqa: E402
from stages import schedule  # noqa: E402
from stages.planning.costs import Costs, Work  # noqa: E402

Row = dict[str, Any]
BATCH = 16
EPOCH = 3200  # examples an epoch; Trainer groups as many by length as with any larger data set
SHALLOW = Shape(Stack(4, 1024), Stack(4, 1024))  # T5-small's width at half its depth, for time
SMALL = Shape(Stack(8, 1024), Stack(8, 1024))  # T5 1.1 small
PRESETS = ("pt", "ld", "fr", "cr")
CPU = torch.device("cpu")
OPTIM = OptimConfig(name="adafactor", lr=0.3)
TIMED = {"boolq": 3, "mnli": 4, "xsum": 2}  # batches of each side that are timed, a systematic sample of its epoch
SCHEDULED = {"mnli": (16, 2), "xsum": (8, 1)}  # batch size, batches timed; encoder reduced alone, and both stacks
TINY = Shape(Stack(1, 64), Stack(1, 64))  # a model that is not run
LENGTH = 260  # source tokens of the batch: BoolQ's 90 % quantile


class OurSide:
    """Our model, trained by our loop's step."""

    def __init__(self, model: PromptedModel) -> None:
        """With a fresh optimizer."""
        self.model, self._optimizer = model, make(model.prompt.parameters(), OPTIM)

    def seconds(self, data: Encoded, batches: Sequence[list[int]]) -> float:
        """Train on these batches, one update each."""
        start = now()
        for indices in batches:
            step(self.model, self._optimizer, Share.of(data, indices), OPTIM, CPU)
        return now() - start

    @torch.no_grad()
    def loss(self, data: Encoded, indices: list[int]) -> float:
        """Mean loss over the batch's target tokens."""
        return self.model(data.batch(indices)).item() / sum(len(data.targets[index]) for index in indices)


def our_batches(data: Encoded, size: int = BATCH) -> list[list[int]]:
    """An epoch in our order."""
    order = UpdateOrder(data, batch_size=size, seed=0)
    return [order.indices(update) for update in range(len(data) // size)]


def in_turns(rounds: int, sides: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Each side's median seconds over rounds in which every side has its turn."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            times[name].append(run())
    return {name: median(seconds) for name, seconds in times.items()}


def update(rounds: int) -> list[Row]:
    """Examples per second of an epoch: ours, PEFT tuned (bf16 too), PEFT padded."""
    with tempfile.TemporaryDirectory() as folder:
        ours = OurSide(part(write_backbone(SHALLOW, Path(folder)), SHALLOW))
        start = ours.model.prompt.learned()["prompt"]
        settings: dict[str, dict[str, bool]] = {
            "PEFT tuned": {"padded": False},
            "PEFT tuned, bf16": {"padded": False, "bf16": True},
            "PEFT padded": {"padded": True},
        }
        theirs = {
            name: PeftSide(standalone(SHALLOW), start, batch_size=BATCH, optim=OPTIM, **words)
            for name, words in settings.items()
        }
        _check_same(ours, theirs["PEFT tuned"])
        return [row for task in LENGTHS for row in _update_of(task, ours, theirs, rounds)]


def _check_same(ours: OurSide, theirs: PeftSide) -> None:
    """Both sides compute the same loss, train as many numbers, and move them the same way."""
    data = examples(LENGTHS["mnli"], 2 * BATCH, seed=1)
    for indices in our_batches(data):
        one, other = ours.loss(data, indices), theirs.loss(data, indices)
        if abs(one - other) > 1e-3 * other:
            raise SystemExit(f"the sides' losses differ: {one} and {other}")
    ours.seconds(data, our_batches(data))
    theirs.seconds(data, our_batches(data))
    vectors = ours.model.prompt.learned()["prompt"]
    if vectors.shape != theirs.vectors.shape or (vectors - theirs.vectors).norm() > 1e-3 * vectors.norm():
        raise SystemExit("the sides' prompts differ after the same updates")


def _update_of(task: str, ours: OurSide, theirs: dict[str, PeftSide], rounds: int) -> list[Row]:
    data = examples(LENGTHS[task], EPOCH)
    tokens = sum(map(sum, data.lengths)) / len(data)
    timed = {"ours": strata(our_batches(data), data, TIMED[task])}
    for name, side in theirs.items():
        # Every padded batch costs the same; bf16 is for comparison alone.
        count = 1 if name == "PEFT padded" or "bf16" in name else TIMED[task]
        timed[name] = strata(side.batches(data), data, count)
    sides: dict[str, Callable[[], float]] = {"ours": partial(ours.seconds, data, timed["ours"])}
    sides |= {name: partial(side.seconds, data, timed[name]) for name, side in theirs.items() if "bf16" not in name}
    for run in (ours.seconds, *(theirs[name].seconds for name in sides if name != "ours")):
        run(data, timed["ours"][:1])  # warm
    seconds = in_turns(rounds, sides)
    if task == "mnli":
        seconds["PEFT tuned, bf16"] = theirs["PEFT tuned, bf16"].seconds(data, timed["PEFT tuned, bf16"])
    rates = {name: BATCH * len(timed[name]) / value for name, value in seconds.items()}
    return [
        {
            "task": task,
            "side": name,
            "examples_s": rate,
            "tokens_s": rate * tokens,
            "ours_against": rates["ours"] / rate,
        }
        for name, rate in rates.items()
    ]


def schedules(rounds: int) -> list[Row]:
    """Seconds of updates of each schedule against vanilla prompt tuning's, beside FLOPs."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        backbone = write_backbone(SMALL, Path(folder))
        for task, (size, count) in SCHEDULED.items():
            data = examples(LENGTHS[task], EPOCH)
            batches = strata(our_batches(data, size), data, count)
            plans = {preset: _schedule_of(preset, task) for preset in PRESETS}
            shapes = {stage.shape for plan in plans.values() for stage in plan.stages}
            sides = {str(shape): OurSide(part(backbone, shape)) for shape in shapes}
            for side in sides.values():
                side.seconds(data, batches[:1])  # warm
            runs = {name: partial(side.seconds, data, batches) for name, side in sides.items()}
            seconds = in_turns(rounds, runs)  # type: ignore[arg-type]
            rows += [_schedule_row(task, plan, preset, seconds, data, batches) for preset, plan in plans.items()]
    return rows


def _schedule_of(preset: str, task: str) -> schedule.Schedule:
    config = compose.load([f"schedule={preset}", f"task={task}"])
    return schedule.build(config.schedule, full=SMALL, updates=3000, reduce_decoder=config.task.reduce_decoder)


def _schedule_row(
    task: str,
    plan: schedule.Schedule,
    preset: str,
    seconds: dict[str, float],
    data: Encoded,
    batches: list[list[int]],
) -> Row:
    sizes = [(size, PROMPT + source, target) for size, source, target in map(data.padded_size, batches)]
    costs = Costs(plan, Price(config_of(SMALL)), Work(lambda update, _: [sizes[update % len(sizes)]]))
    flops = [costs.stage(stage) for stage in plan.stages]
    spent = sum(stage.updates * seconds[str(stage.shape)] for stage in plan.stages)
    ratio = spent / (plan.updates * seconds[str(SMALL)])
    stages = [seconds[str(stage.shape)] / seconds[str(SMALL)] for stage in plan.stages]
    return {
        "task": task,
        "schedule": preset,
        "time": ratio,
        "flops": sum(row["flops"] for row in flops) / sum(row["flops_full"] for row in flops),
        "stage_time": stages,
        "stage_flops": [row["flops_ratio"] for row in flops],
    }


def padding(_: int) -> list[Row]:
    """The share of source and target positions that are padding, over an epoch."""
    sides = {
        "PEFT tuned": PeftSide(standalone(TINY), torch.zeros(PROMPT, 512), batch_size=BATCH, optim=OPTIM, padded=False),
        "PEFT padded": PeftSide(standalone(TINY), torch.zeros(PROMPT, 512), batch_size=BATCH, optim=OPTIM, padded=True),
    }
    rows = []
    for task, lengths in LENGTHS.items():
        data = examples(lengths, EPOCH)
        for size in (BATCH, 2 * BATCH):
            batches = our_batches(data, size)
            shapes = [data.padded_size(one)[1:] for one in batches]
            rows.append(_padding_row(task, f"ours, {size}", data, batches, shapes))
        for name, side in sides.items():
            batches = side.batches(data)
            shapes = [side.padded_size(data, one) for one in batches]
            rows.append(_padding_row(task, f"{name}, {BATCH}", data, batches, shapes))
    return rows


def _padding_row(
    task: str, side: str, data: Encoded, batches: list[list[int]], shapes: Sequence[tuple[int, int]]
) -> Row:
    lengths = [data.lengths[index] for indices in batches for index in indices]
    real = [sum(column) for column in zip(*lengths, strict=True)]
    pairs = list(zip(batches, shapes, strict=True))
    computed = [sum(len(indices) * shape[axis] for indices, shape in pairs) for axis in (0, 1)]
    source, target = (1 - one / other for one, other in zip(real, computed, strict=True))
    return {"task": task, "side": side, "all": 1 - sum(real) / sum(computed), "source": source, "target": target}


def memory(_: int) -> list[Row]:
    """Peak resident memory of a CR schedule's stages, beside a standalone model's of the same shape."""
    stages = _schedule_of("cr", "xsum").stages
    cost = Price(config_of(SMALL))
    with tempfile.TemporaryDirectory() as folder:
        write_backbone(SMALL, Path(folder))
        names = [f"{one.shape.encoder.blocks},{one.shape.decoder.blocks},{one.shape.encoder.neurons}" for one in stages]
        peaks = _peaks(folder, *names)
        alone = [_peaks(folder, name, "--standalone")[0] for name in names]
    return [
        {
            "stage": stage.name,
            "weights": 4 * cost.parameters(stage.shape),
            "peak": peak,
            "standalone": needed,
            "against": peak / needed,
            "of_full": peak / peaks[-1],
        }
        for stage, peak, needed in zip(stages, peaks, alone, strict=True)
    ]


def _peaks(folder: str, *words: str) -> list[int]:
    command = [sys.executable, "-m", "bench.memory", folder, str(LENGTH), *words]
    peaks: list[int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return peaks


def start(_: int) -> list[Row]:
    """Seconds from the command to the first update on the embedded model."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, cpu = _first_update(Path(folder) / "run")
    return [{"seconds": seconds, "cpu_seconds": cpu}]


def _first_update(folder: Path) -> tuple[float, float]:
    """Run `fpt train` until metrics.jsonl has its first line: wall clock, and CPU seconds (Linux)."""
    words = ["task=boolq", f"run.dir={folder}"]
    began = time.perf_counter()
    command = [sys.executable, "-m", "fpt", "train", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        metrics = folder / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None or time.perf_counter() - began > 300:
                raise SystemExit(f"{' '.join(command)}: no update")
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        process.terminate()
    return seconds, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rich's, in the project's form."""
    grid = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index < 2 else "right")
    for row in rows:
        grid.add_row(*row)
    return grid


def update_table(rows: list[Row]) -> Table:
    """Speeds."""
    columns = ("lengths of", "side", "examples/s", "tokens/s", "ours against it")
    cells = [
        (
            row["task"],
            row["side"],
            f"{row['examples_s']:.2f}",
            f"{row['tokens_s']:,.0f}",
            f"{row['ours_against']:.2f} x",
        )
        for row in rows
    ]
    return table(columns, cells)


def schedules_table(rows: list[Row]) -> Table:
    """Time beside FLOPs."""
    columns = ("lengths of", "schedule", "time", "FLOPs", "points apart", "stages: time (FLOPs), % of full")
    cells = []
    for row in rows:
        pairs = zip(row["stage_time"], row["stage_flops"], strict=True)
        stages = ", ".join(f"{100 * seconds:.0f} ({100 * flops:.0f})" for seconds, flops in pairs)
        apart = f"{100 * (row['time'] - row['flops']):+.1f}"
        cells.append((row["task"], row["schedule"], f"{row['time']:.1%}", f"{row['flops']:.1%}", apart, stages))
    return table(columns, cells)


def padding_table(rows: list[Row]) -> Table:
    """Shares of padding."""
    columns = ("lengths of", "side, batch", "padding", "of sources", "of targets")
    shares = ("all", "source", "target")
    return table(columns, [(row["task"], row["side"], *(f"{row[key]:.1%}" for key in shares)) for row in rows])


def memory_table(rows: list[Row]) -> Table:
    """Peaks in MB."""
    columns = ("stage", "", "weights", "peak", "standalone model's", "peak against it", "of the full model's peak")
    return table(
        columns,
        [
            (
                row["stage"],
                "",
                *(f"{row[key] / 1e6:,.0f} MB" for key in ("weights", "peak", "standalone")),
                f"{row['against']:.2f} x",
                f"{row['of_full']:.0%}",
            )
            for row in rows
        ],
    )


def start_table(rows: list[Row]) -> Table:
    """Seconds."""
    return table(
        ("", "", "first update after", "CPU seconds"),
        [("fpt train", "", f"{row['seconds']:.1f} s", f"{row['cpu_seconds']:.1f}") for row in rows],
    )


SECTIONS: dict[str, tuple[Callable[[int], list[Row]], Callable[[list[Row]], Table]]] = {
    "update": (update, update_table),
    "schedule": (schedules, schedules_table),
    "padding": (padding, padding_table),
    "memory": (memory, memory_table),
    "start": (start, start_table),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description=__doc__)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every side (default %(default)s)")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    options = parser.parse_args(arguments)
    console, measured, whole = Console(width=130, highlight=False), {}, time.perf_counter()
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {clock.name()}")
    for name in options.only.split(","):
        measure, show = SECTIONS[name]
        began = time.perf_counter()
        measured[name] = measure(options.rounds)
        console.print(f"\n{name} ({time.perf_counter() - began:.0f} s)")
        console.print(show(measured[name]))
    console.print(f"\n{time.perf_counter() - whole:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
