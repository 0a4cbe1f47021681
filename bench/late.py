"""Late prompts against soft ones on the embedded model: `python -m bench.late` prints it, doing first what is missing.

Every run is an ordinary `fpt train` under runs/late, and bench/results/late.jsonl keeps what came of it: several
processes may work on them, and the same command goes on where it was interrupted, elsewhere too. `--small` is a part
that takes a core some twenty minutes; `--tune` has the learning rates that were tried, `--costs` what each method
costs, which only an otherwise idle machine can tell.
"""

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bench.records import Records
from bench.runs import read, spread, table
from fpt.runs.progress import quiet_libraries
from fpt.tasks.benchmarks import RULES
from pretraining.world import records as world

RECORDS = Records("late")
TASKS = tuple(world.TASKS)
SOFT = ("pt", "cr")
GENERATORS = ("npg", "appg", "mppg", "none")
CR = "npg through cr"
METHODS = (*SOFT, *GENERATORS, CR)
FULL = "all"
SIZES = (FULL, "16", "32", "100")
WORDS = {
    FULL: ("train.updates=60", "train.eval_every=60", "train.batch_size=16"),
    "few": ("train.updates=32", "train.eval_every=32", "train.batch_size=8", "task.train_examples=400"),
    "alike": ("task.valid_examples=250", "train.score_untrained=false", "train.save_every=1000", "tracking=none"),
}
RATES = {"pt": 0.1, "cr": 0.3, "npg": 0.01, "appg": 0.03, "mppg": 0.01, "none": 3.0}  # by `--tune`
TRIED = {
    **dict.fromkeys(SOFT, (0.1, 0.3)),
    **dict.fromkeys(GENERATORS, (0.001, 0.003, 0.01, 0.03, 0.1)),
    "none": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
}
CURVES = {  # settings of npg: of each, what is tried, of which one is its own
    "layer": tuple(f"prompt.layer={part}" for part in (0.25, 0.5, 0.75)),
    "length": tuple(f"prompt.length={number}" for number in (1, 5, 10, 20)),
}
OWN = ("prompt.layer=0.5", "prompt.length=5")
TUNED = [(task, size) for task in ("mnli", "boolq") for size in (FULL, "16")]
TUNING, COSTING = 100, 200  # seeds that are none of the comparison's
COSTED = (FULL, "100")
COSTED_TASKS = ("boolq", "record", "xsum")  # short answers, long sources, long answers
UNCACHED = ("prompt.cache=off",)

OF_SCORES = """\
## Late prompts

Printed by `python -m bench.late{small}` from runs of `fpt train` on the embedded model. Plain reading in
{tasks} tasks, all 4,000 training examples, or with a sample of 16, 32 or 100 that the seed draws (of MNLI's three
labels 15, 30 and 99).
`pt` and `cr` are a soft prompt of 20 vectors, trained on the full model and through compound reduction; `npg`, `appg`,
`mppg` and `none` are late prompts of five vectors with that generator, after half of the encoder's blocks, with the
published start and dropout.

All methods have the same updates and examples: 60 updates of 16 with all examples, 32 of 8 with few, so that two cores
get through it in an evening. Nothing is
chosen by validation scores: the prompt after the last update is scored on the first 250 validation examples. Mean and
standard deviation over the seeds.
"""
OF_DIFFERENCES = """\
### Against pt

The mean over the tasks, minus `pt`'s with the same seed and the same examples.
"""
OF_CURVES = """\
### Where it enters, and how long it is

`npg` with another `prompt.layer` or `prompt.length`, {seeds} seeds of {task}.
"""
OF_RATES = """\
### Learning rates

What was tried with seed {seed}, on MNLI and BoolQ, all examples and 16, with the same few updates. The comparison has
{rates}. The published rates for late
prompts, 0.0005 to 0.001, are for RoBERTa-Large and thousands of updates.
"""
OF_COSTS = """\
### Costs

One seed on BoolQ, ReCoRD and XSum, all examples and 100; means over the tasks of what a run takes against `pt`. Of all
examples none is seen twice, so no states below the prompt are kept; of 100 they are, but for rows with
`prompt.cache=off`. Seconds are of training, neuron scores included, on one core each; memory is planned, of the largest
stage without the weights.
"""


@dataclass(frozen=True)
class Run:
    """One run: a task, a method, how many training examples it has, a seed, and what else `fpt train` is told."""

    task: str
    method: str
    size: str
    seed: int
    more: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is kept as."""
        more = [word.partition(".")[2].replace("=", "") for word in self.more]
        return "-".join([self.task, self.method.replace(" ", "-"), self.size, *more, f"s{self.seed}"])

    @property
    def words(self) -> list[str]:
        """What `fpt train` is told."""
        few = () if self.size == FULL else (*WORDS["few"], f"task.shots={shots(self.task, int(self.size))}")
        length = few or WORDS[FULL]
        return [
            f"task={self.task}",
            "task.world=plain",
            f"seed={self.seed}",
            *recipe(self.method),
            *length,
            *WORDS["alike"],
            *self.more,
        ]

    @property
    def is_done(self) -> bool:
        """Whether it is kept."""
        return RECORDS.has(self.name, self.words)

    @property
    def record(self) -> dict[str, Any]:
        """What is kept of it."""
        return RECORDS[self.name]


@dataclass(frozen=True)
class Scope:
    """What is compared: all of it, or a part that tells less."""

    tasks: tuple[str, ...] = TASKS
    sizes: tuple[str, ...] = SIZES
    seeds: tuple[int, ...] = ()
    curved: tuple[tuple[str, str], ...] = tuple((task, size) for task in ("mnli", "qqp") for size in (FULL, "16"))
    curve_seeds: tuple[int, ...] = (0, 1, 2)

    def grid(self, seeds: Iterable[int] | None = None, sizes: Sequence[str] | None = None) -> Iterator[Run]:
        """Every run of the comparison; a seed's together, so that fewer seeds are a whole table too."""
        for seed in self.seeds if seeds is None else seeds:
            for size in sizes or self.sizes:
                yield from (Run(task, method, size, seed) for task in self.tasks for method in METHODS)

    def curves(self) -> Iterator[Run]:
        """The runs of npg with other settings; its own is one of the comparison's."""
        for seed in self.curve_seeds:
            for task, size in self.curved:
                yield from (curved(task, size, word, seed) for words in CURVES.values() for word in words)


SMALL = Scope(
    tasks=("mnli", "boolq", "qqp"), sizes=(FULL, "32"), seeds=(0, 1), curved=(("mnli", FULL),), curve_seeds=(0,)
)


def curved(task: str, size: str, word: str, seed: int) -> Run:
    """Npg with one more word, which may be its own setting."""
    return Run(task, "npg", size, seed, () if word in OWN else (word,))


def recipe(method: str) -> tuple[str, ...]:
    """A method in `fpt train`'s words."""
    if method in SOFT:
        return f"schedule={method}", f"optim.lr={RATES[method]}"
    generator, schedule = ("npg", "cr") if method == CR else (method, "pt")
    return "prompt=late", f"prompt.generator={generator}", f"schedule={schedule}", f"optim.lr={RATES[generator]}"


def shots(task: str, examples: int) -> int:
    """task.shots for so many examples: of each label, or in all where there are no labels."""
    return examples // max(1, len(RULES[task].labels))


def do(runs: Iterable[Run], jobs: int) -> None:
    """Do what is not kept yet."""
    RECORDS.make({run.name: run.words for run in runs}, jobs, more)


def more(folder: Path) -> Mapping[str, Any]:
    """What else of a finished run is kept: how much is learned, and planned bytes without the weights."""
    stages = json.loads((folder / "plan.json").read_text())["stages"]
    return {
        "trainable_parameters": read(folder)["trainable_parameters"],
        "memory": max(stage["total"] - stage["weights"] for stage in stages),
    }


def score(run: Run) -> float:
    """The main metric of a run that is kept."""
    value: float = run.record["metric"]["value"]
    return value


def compare(scope: Scope) -> None:
    """Print the scores, of each size those seeds whose runs are all done."""
    whole = {
        size: [seed for seed in scope.seeds if all(run.is_done for run in scope.grid([seed], [size]))]
        for size in scope.sizes
    }
    print(OF_SCORES.format(small=" --small" if scope == SMALL else "", tasks=len(scope.tasks)))
    for size, those in whole.items():
        if those:
            examples = "All" if size == FULL else size
            print(f"### {examples} examples, {len(those)} seeds\n\n{scores_table(scope.tasks, size, those)}")
    few = list(scope.sizes[1:])
    groups = {size: [size] for size in scope.sizes}
    if len(few) > 1:
        groups[f"{', '.join(few[:-1])} and {few[-1]}"] = few
    rows = []
    for name, sizes in groups.items():
        those = [seed for seed in scope.seeds if all(seed in whole[size] for size in sizes)]
        if those:
            differences = ([against_pt(scope.tasks, method, sizes, seed) for seed in those] for method in METHODS[1:])
            rows.append([name, *(spread(values, "+.1f") for values in differences)])
    print(f"{OF_DIFFERENCES}\n{table(('examples', *METHODS[1:]), rows)}")
    draw(scope)


def draw(scope: Scope) -> None:
    """Print npg's scores by its settings, where all of them are there."""
    if not all(run.is_done for run in scope.curves()):
        return
    tasks = " and ".join(dict.fromkeys(task for task, _ in scope.curved))
    print(OF_CURVES.format(seeds=len(scope.curve_seeds), task=tasks))
    rows = []
    for word in (word for words in CURVES.values() for word in words):
        columns = [[score(curved(*place, word, seed)) for seed in scope.curve_seeds] for place in scope.curved]
        rows.append([word, *map(spread, columns)])
    print(table(("setting", *(f"{task}, {size}" for task, size in scope.curved)), rows), end="")


def scores_table(tasks: Sequence[str], size: str, seeds: Sequence[int]) -> str:
    """Every task and method, and the mean over the tasks."""
    rows = [[task, *(spread(scores([task], method, size, seeds)) for method in METHODS)] for task in tasks]
    return table(
        ("task", *METHODS), [*rows, ["mean", *(spread(scores(tasks, method, size, seeds)) for method in METHODS)]]
    )


def scores(tasks: Sequence[str], method: str, size: str, seeds: Sequence[int]) -> list[float]:
    """Of every seed the mean over the tasks."""
    return [mean(score(Run(task, method, size, seed)) for task in tasks) for seed in seeds]


def against_pt(tasks: Sequence[str], method: str, sizes: Sequence[str], seed: int) -> float:
    """The mean over tasks and sizes, minus vanilla prompt tuning's with the same seed and examples."""
    mine, pt = (mean(scores(tasks, which, size, [seed])[0] for size in sizes) for which in (method, "pt"))
    return mine - pt


def tune(jobs: int) -> None:
    """Do and print what was tried."""
    tried = {
        (method, rate): [Run(task, method, size, TUNING, (f"optim.lr={rate}",)) for task, size in TUNED]
        for method, rates in TRIED.items()
        for rate in rates
    }
    do((run for runs in tried.values() for run in runs), jobs)
    rates = ", ".join(f"{rate} for {name}" for name, rate in RATES.items())
    print(OF_RATES.format(seed=TUNING, rates=rates))
    rows = []
    for (method, rate), runs in tried.items():
        values = [score(run) for run in runs]
        rows.append([method, str(rate), *(f"{value:.1f}" for value in values), f"{mean(values):.1f}"])
    print(table(("method", "rate", *(f"{task}, {size}" for task, size in TUNED), "mean"), rows))


def price(jobs: int) -> None:
    """Do and print what the methods cost."""
    variants: list[tuple[str, tuple[str, ...]]] = [(method, ()) for method in METHODS]
    variants += [(method, UNCACHED) for method in METHODS if method not in SOFT]
    do(
        (costed(task, method, size, more) for method, more in variants for task in COSTED_TASKS for size in COSTED),
        jobs,
    )
    columns = [f"{what}, {size}" for size in COSTED for what in ("FLOPs", "seconds")]
    rows = [[" ".join((method, *more)), *costs(method, more)] for method, more in variants]
    print(f"{OF_COSTS}\n{table(('method', 'trainable parameters', *columns, 'memory'), rows)}", end="")


def costs(method: str, more: tuple[str, ...]) -> list[str]:
    """A method's trainable parameters, and against pt its FLOPs and seconds with each size, and its memory."""

    def against(size: str, what: str) -> str:
        """The mean over the tasks."""
        pairs = [(costed(task, method, size, more), costed(task, "pt", size)) for task in COSTED_TASKS]
        return f"{100 * mean(run.record[what] / pt.record[what] for run, pt in pairs):.0f} %"

    columns = [against(size, cost) for size in COSTED for cost in ("flops", "seconds")]
    parameters = costed(COSTED_TASKS[0], method, COSTED[0]).record["trainable_parameters"]
    return [f"{parameters:,}", *columns, against(COSTED[0], "memory")]


def costed(task: str, method: str, size: str, more: tuple[str, ...] = ()) -> Run:
    """A run that is only priced; with all examples none is seen twice, so nothing is kept anyway."""
    words = () if size == FULL else more
    return Run(task, method, size, COSTING, (*words, "task.valid_examples=16"))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.late", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default %(default)s)")
    parser.add_argument("--small", action="store_true", help="three tasks, two sizes, two seeds")
    parser.add_argument("--tune", action="store_true", help="the learning rates that were tried, instead")
    parser.add_argument("--costs", action="store_true", help="what each method costs, instead")
    options = parser.parse_args()
    quiet_libraries()
    if options.tune:
        tune(options.jobs)
    elif options.costs:
        price(options.jobs)
    else:
        scope = SMALL if options.small else Scope(seeds=tuple(range(options.seeds)))
        do((*scope.grid(), *scope.curves()), options.jobs)
        compare(scope)


if __name__ == "__main__":
    main()
