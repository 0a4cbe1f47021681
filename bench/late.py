"""Late prompts against soft ones on the embedded model: `python -m bench.late` prints it, doing first what is missing.

Every run is an ordinary `fpt train` under runs/late; several processes may work on them, and after an interruption the
same command goes on. `--tune` has the learning rates that were tried, `--costs` what each method costs, which only an
otherwise idle machine can tell.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from bench.runs import is_done, read, run_missing, score, spread, table
from fpt.runs.progress import quiet_libraries
from fpt.tasks.catalogue import RULES
from fpt.tasks.world import records as world

FOLDER = Path("runs/late")
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
RATES = {"pt": 0.1, "cr": 0.1, "npg": 0.01, "appg": 0.01, "mppg": 0.01, "none": 0.3}  # what `--tune` is for
TRIED = {
    **dict.fromkeys(SOFT, (0.1, 0.3)),
    **dict.fromkeys(GENERATORS, (0.001, 0.003, 0.01, 0.03)),
    "none": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
}
TUNED = [(task, size) for task in ("mnli", "boolq") for size in (FULL, "16")]
TUNING, COSTING = 100, 200  # seeds that are none of the comparison's
COSTED = (FULL, "100")
COSTED_TASKS = ("boolq", "record", "xsum")  # short answers, long sources, long answers
UNCACHED = ("prompt.cache=off",)

OF_SCORES = """\
## Late prompts

Printed by `python -m bench.late` from runs of `fpt train` on the embedded model. Plain reading in six tasks, all 4,000
training examples, or with a sample of 16, 32 or 100 that the seed draws (of MNLI's three labels 15, 30 and 99). `pt`
and `cr` are a soft prompt of 20 vectors, trained on the full model and through compound reduction; `npg`, `appg`,
`mppg` and `none` are late prompts of five vectors with that generator, after half of the encoder's blocks.

All methods have the same updates and examples: 60 updates of 16 with all examples, 32 of 8 with few, so that two cores
get through it in an evening. Nothing is
chosen by validation scores: the prompt after the last update is scored on the first 250 validation examples. Mean and
standard deviation over the seeds.
"""
OF_DIFFERENCES = """\
### Against pt

The mean over the six tasks, minus `pt`'s with the same seed and the same examples.
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
    def folder(self) -> Path:
        """Where it is kept."""
        more = [word.partition(".")[2].replace("=", "") for word in self.more]
        return FOLDER / "-".join([self.task, self.method.replace(" ", "-"), self.size, *more, f"s{self.seed}"])

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


def recipe(method: str) -> tuple[str, ...]:
    """A method in `fpt train`'s words."""
    if method in SOFT:
        return f"schedule={method}", f"optim.lr={RATES[method]}"
    generator, schedule = ("npg", "cr") if method == CR else (method, "pt")
    return "prompt=late", f"prompt.generator={generator}", f"schedule={schedule}", f"optim.lr={RATES[generator]}"


def shots(task: str, examples: int) -> int:
    """task.shots for so many examples: of each label, or in all where there are no labels."""
    return examples // max(1, len(RULES[task].labels))


def grid(seeds: Iterable[int], sizes: Sequence[str] = SIZES) -> Iterator[Run]:
    """Every run of the comparison; a seed's together, so that fewer seeds are a whole table too."""
    for seed in seeds:
        for size in sizes:
            yield from (Run(task, method, size, seed) for task in TASKS for method in METHODS)


def do(runs: Iterable[Run], jobs: int) -> None:
    """Do what has no result yet."""
    run_missing({run.folder: [*run.words, f"cache_dir={FOLDER}/cache"] for run in runs}, jobs)


def compare(seeds: Sequence[int]) -> None:
    """Print the scores, of each size those seeds whose runs are all done."""
    whole = {
        size: [seed for seed in seeds if all(is_done(run.folder) for run in grid([seed], [size]))] for size in SIZES
    }
    print(OF_SCORES)
    for size, those in whole.items():
        if those:
            print(f"### {'All' if size == FULL else size} examples, {len(those)} seeds\n\n{scores_table(size, those)}")
    groups = {size: [size] for size in SIZES} | {"16, 32 and 100": list(SIZES[1:])}
    rows = []
    for name, sizes in groups.items():
        those = [seed for seed in seeds if all(seed in whole[size] for size in sizes)]
        if those:
            differences = ([against_pt(method, sizes, seed) for seed in those] for method in METHODS[1:])
            rows.append([name, *(spread(values, "+.1f") for values in differences)])
    print(f"{OF_DIFFERENCES}\n{table(('examples', *METHODS[1:]), rows)}", end="")


def scores_table(size: str, seeds: Sequence[int]) -> str:
    """Every task and method, and the mean over the tasks."""
    rows = [[task, *(spread(scores([task], method, size, seeds)) for method in METHODS)] for task in TASKS]
    return table(
        ("task", *METHODS), [*rows, ["mean", *(spread(scores(TASKS, method, size, seeds)) for method in METHODS)]]
    )


def scores(tasks: Sequence[str], method: str, size: str, seeds: Sequence[int]) -> list[float]:
    """Of every seed the mean over the tasks."""
    return [mean(score(Run(task, method, size, seed).folder) for task in tasks) for seed in seeds]


def against_pt(method: str, sizes: Sequence[str], seed: int) -> float:
    """The mean over tasks and sizes, minus vanilla prompt tuning's with the same seed and examples."""
    mine, pt = (mean(scores(TASKS, which, size, [seed])[0] for size in sizes) for which in (method, "pt"))
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
        values = [score(run.folder) for run in runs]
        rows.append([method, str(rate), *(f"{value:.1f}" for value in values), f"{mean(values):.1f}"])
    print(table(("method", "rate", *(f"{task}, {size}" for task, size in TUNED), "mean"), rows))


def price(jobs: int) -> None:
    """Do and print what the methods cost."""
    variants: list[tuple[str, tuple[str, ...]]] = [(method, ()) for method in METHODS]
    variants += [(method, UNCACHED) for method in METHODS if method not in SOFT]
    runs = [costed(task, method, size, more) for method, more in variants for task in COSTED_TASKS for size in COSTED]
    neurons = {run: f"cache_dir={run.folder}-cache" for run in runs}  # of its own: no run finds another's scores
    run_missing({run.folder: [*run.words, "task.valid_examples=16", neurons[run]] for run in runs}, jobs)
    columns = [f"{what}, {size}" for size in COSTED for what in ("FLOPs", "seconds")]
    rows = [[" ".join((method, *more)), *costs(method, more)] for method, more in variants]
    print(f"{OF_COSTS}\n{table(('method', 'trainable parameters', *columns, 'memory'), rows)}", end="")


def costs(method: str, more: tuple[str, ...]) -> list[str]:
    """A method's trainable parameters, and against pt its FLOPs and seconds with each size, and its memory."""

    def against(size: str, what: Callable[[Path], float]) -> str:
        """The mean over the tasks."""
        pairs = [(costed(task, method, size, more), costed(task, "pt", size)) for task in COSTED_TASKS]
        return f"{100 * mean(what(run.folder) / what(pt.folder) for run, pt in pairs):.0f} %"

    columns = [against(size, cost) for size in COSTED for cost in (flops, seconds)]
    parameters = read(costed(COSTED_TASKS[0], method, COSTED[0]).folder)["trainable_parameters"]
    return [f"{parameters:,}", *columns, against(COSTED[0], memory)]


def costed(task: str, method: str, size: str, more: tuple[str, ...] = ()) -> Run:
    """A run that is only priced; with all examples none is seen twice, so nothing is kept anyway."""
    return Run(task, method, size, COSTING, () if size == FULL else more)


def flops(folder: Path) -> float:
    """Of training, the scoring of neurons included."""
    return float(read(folder)["flops"])


def seconds(folder: Path) -> float:
    """The same's."""
    return float(read(folder)["seconds"])


def memory(folder: Path) -> float:
    """Planned bytes of the largest stage, without the weights."""
    stages = json.loads((folder / "plan.json").read_text())["memory"]["stages"]
    return float(max(stage["total"] - stage["weights"] for stage in stages))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.late", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default %(default)s)")
    parser.add_argument("--tune", action="store_true", help="the learning rates that were tried, instead")
    parser.add_argument("--costs", action="store_true", help="what each method costs, instead")
    options = parser.parse_args()
    quiet_libraries()
    if options.tune:
        tune(options.jobs)
    elif options.costs:
        price(options.jobs)
    else:
        do(grid(range(options.seeds)), options.jobs)
        compare(range(options.seeds))


if __name__ == "__main__":
    main()
