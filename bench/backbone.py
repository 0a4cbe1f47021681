"""What the embedded backbone shows: `python -m bench.backbone` prints docs/backbone.md, doing first what is missing.

Every run is an ordinary `fpt train` under runs/backbone; after an interruption the same command goes on.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bench.runs import read, run_missing, score, spread, table
from fpt.config import compose
from fpt.runs.progress import quiet_libraries
from fpt.tasks.opening import open_task
from fpt.tasks.task import Example
from fpt.tasks.world import records as world

FOLDER = Path("runs/backbone")
TASKS = tuple(world.TASKS)
COMPARED = "boolq"  # where the schedules and the partial PLMs are held against each other
PRESETS = ("pt", "ld", "fr", "cr")
PARTIAL = {
    "half depth": "[{depth: 0.5, share: 1}]",
    "quarter width": "[{width: 0.25, share: 1}]",
}
SHORT = "pt at cr's FLOPs"

INTRODUCTION = """\
# The embedded backbone, measured

Printed by `python -m bench.backbone`: {runs} runs of `fpt train` on the embedded model with its own recipe
(`conf/model/tiny.yaml`), {seeds} seeds each, {jobs} at a time on one core each. Scores are of the generated validation
splits (500 examples), mean and standard deviation over the seeds. How the model was made is in its card,
`fpt/backbones/tiny/README.md`.
"""
OF_TASKS = """\
## Tasks

Vanilla prompt tuning. The baseline needs no model; "question only" is logistic regression on the words of question,
hypothesis or query alone (of the document for xsum). The first validation is after {first} updates of {updates}.
"""
OF_SCHEDULES = """\
## Schedules and partial models on {task}

The same number of updates for all but "{short}", which is vanilla prompt tuning for as many updates as CR's FLOPs pay
for. "half depth" and "quarter width" are prompts tuned and scored on that fixed part of the model alone. FLOPs are
those of training, the scoring of neurons included.
"""
OF_PROMPTS = """\
## Prompts

Cosine similarity of learned prompts, vector by vector in the same place, averaged. Runs of one seed start from the same
prompt and see their data in the same order.
"""


def overrides(task: str, row: str, seed: int) -> list[str]:
    """What `fpt train` is told, but for the folder."""
    words = [f"task={task}", f"seed={seed}", "train.save_every=200"]
    if row in PARTIAL:
        return [*words, "schedule=pt", f"schedule.stages={PARTIAL[row]}", "schedule.partial_end=true"]
    if row == SHORT:
        return [*words, "schedule=pt", f"train.updates={affordable(task)}"]
    return [*words, f"schedule={row}"]


def affordable(task: str) -> int:
    """How many updates of vanilla prompt tuning cost as much as the whole of CR, its neuron scores included."""
    result = read(folder(task, "cr", 0))
    updates: int = result["updates"]
    return round(updates * result["flops_ratio"])


def folder(task: str, row: str, seed: int) -> Path:
    """Where a run is kept."""
    name = "".join(letter if letter.isalnum() else "-" for letter in row)
    return FOLDER / f"{task}-{name}-s{seed}"


# Tables ------------------------------------------------------------------------------------------------------------


def scores(task: str, row: str, seeds: Sequence[int]) -> list[float]:
    """The main metric of every seed."""
    return [score(folder(task, row, seed)) for seed in seeds]


def early(task: str, seed: int) -> float:
    """The score of vanilla prompt tuning's first validation."""
    score: float = first_validation(task, seed)[read(folder(task, "pt", seed))["metric"]["name"]]
    return score


def first_validation(task: str, seed: int) -> dict[str, Any]:
    """The line of metrics.jsonl."""
    lines = map(json.loads, (folder(task, "pt", seed) / "metrics.jsonl").read_text().splitlines())
    return next(line for line in lines if "split" in line)


def tasks_table(seeds: Sequence[int]) -> str:
    """Vanilla prompt tuning on every task, beside what needs no prompt or no reading."""
    rows = []
    for task in TASKS:
        result = read(folder(task, "pt", seeds[0]))
        untrained = [read(folder(task, "pt", seed))["untrained"] for seed in seeds]
        rows.append(
            [
                task,
                result["metric"]["name"],
                f"{result['majority']:.1f} ({result['baseline']})",
                f"{without_passage(task):.1f}",
                spread(untrained),
                spread([early(task, seed) for seed in seeds]),
                f"**{spread(scores(task, 'pt', seeds))}**",
            ]
        )
    columns = ("task", "metric", "baseline", "question only", "untrained prompt", "first validation", "prompt tuning")
    return table(columns, rows)


def schedules_table(task: str, seeds: Sequence[int]) -> str:
    """Schedules and partial PLMs on one task."""
    vanilla = scores(task, "pt", seeds)
    rows = []
    for row in (*PRESETS, SHORT, *PARTIAL):
        values = scores(task, row, seeds)
        results = [read(folder(task, row, seed)) for seed in seeds]
        seconds = mean(result["seconds"] for result in results)
        rows.append(
            [
                row,
                spread(values),
                f"{mean(values) - mean(vanilla):+.1f}",
                f"{100 * results[0]['flops'] / read(folder(task, 'pt', seeds[0]))['flops']:.1f} %",
                f"{seconds:.0f}",
            ]
        )
    return table(("prompt tuned with", "score", "against pt", "FLOPs", "seconds"), rows)


def similarity_table(seeds: Sequence[int]) -> str:
    """Mean cosine similarity of prompts, vector by vector in place, and of all vectors together."""
    groups: Mapping[str, list[tuple[tuple[str, str, int], tuple[str, str, int]]]] = {
        "one seed, different partial PLMs of one task": [
            ((COMPARED, one, seed), (COMPARED, other, seed))
            for seed in seeds
            for one, other in combinations(("pt", *PARTIAL), 2)
        ],
        "one seed, different tasks": [
            ((one, "pt", seed), (other, "pt", seed)) for seed in seeds for one, other in combinations(TASKS, 2)
        ],
        "different seeds, one task": [
            ((COMPARED, "pt", one), (COMPARED, "pt", other)) for one, other in combinations(seeds, 2)
        ],
    }
    rows = [
        [name, f"{mean(cosine(*pair) for pair in pairs):.3f}", str(len(pairs))]
        for name, pairs in groups.items()
        if pairs
    ]
    return table(("prompts", "cosine similarity", "pairs"), rows)


def cosine(one: tuple[str, str, int], other: tuple[str, str, int]) -> float:
    """Of two prompts [P, D]: the mean over the P vectors in the same place."""
    from safetensors.torch import load_file
    from torch.nn.functional import cosine_similarity

    first, second = (load_file(folder(*which) / "prompt.safetensors")["prompt"] for which in (one, other))
    return float(cosine_similarity(first, second, dim=1).mean())


def without_passage(task: str) -> float:
    """What the words of the question alone are good for: logistic regression on words and pairs of words.

    XSum has no question, so it is its document's words that choose among the training summaries.
    """
    data = open_task(compose.load([f"task={task}"]))
    words = {
        "boolq": ("question: ", " passage: "),
        "mnli": ("hypothesis: ", " premise: "),
        "qqp": ("question1: ", " question2: "),
        "squad_v2": ("question: ", " context: "),
        "record": ("query: ", " passage: "),
        "xsum": ("", "\n"),
    }[task]

    def asked(examples: Sequence[Example]) -> list[str]:
        return [example.source.split(words[1])[0].removeprefix(words[0]) for example in examples]

    model = make_pipeline(CountVectorizer(ngram_range=(1, 2), binary=True), LogisticRegression(max_iter=200, C=0.1))
    some = data.train[:1000] if task in ("record", "xsum") else data.train
    model.fit(asked(some), [example.golds[0] for example in some])
    answers = list(model.predict(asked(data.valid)))
    return data.score(answers, data.valid)[data.metric]


def wanted(seeds: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """Every run of the tables; CR's first, since it says what the short one may spend."""
    for seed in seeds:
        yield from ((COMPARED, row, seed) for row in ("cr", "pt", "ld", "fr", *PARTIAL))
        yield from ((task, "pt", seed) for task in TASKS if task != COMPARED)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.backbone", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default %(default)s)")
    options = parser.parse_args()
    quiet_libraries()
    seeds = range(options.seeds)
    for some in (list(wanted(seeds)), [(COMPARED, SHORT, seed) for seed in seeds]):
        run_missing({folder(*one): overrides(*one) for one in some}, options.jobs)
    runs = len(list(wanted(seeds))) + len(seeds)
    print(INTRODUCTION.format(runs=runs, seeds=len(seeds), jobs=options.jobs))
    first, updates = first_validation(COMPARED, 0)["update"], read(folder(COMPARED, "pt", 0))["updates"]
    print(f"{OF_TASKS.format(first=first, updates=updates)}\n{tasks_table(seeds)}")
    print(f"{OF_SCHEDULES.format(task=COMPARED, short=SHORT)}\n{schedules_table(COMPARED, seeds)}")
    print(f"{OF_PROMPTS}\n{similarity_table(seeds)}", end="")


if __name__ == "__main__":
    main()
