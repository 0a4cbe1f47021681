"""What the embedded backbone shows: `python -m bench.backbone` prints its tables, running first what is missing.

The runs are those of `bench.rows`; the same command goes on where it was interrupted, elsewhere too.
"""

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import mean, stdev

from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bench.rows import (
    BATCH_SIZE,
    CHOSEN_ON,
    CLIMBING,
    COMPARED,
    LANDS,
    ONE,
    PARTIAL,
    RATES,
    RECORDS,
    SCHEDULES,
    SHARES,
    TRIED,
    UPDATES,
    VANILLA,
    at_share,
    flops_share,
    gain,
    last,
    made,
    name,
    overrides,
    plain_overrides,
    reached,
    words_at,
)
from bench.runs import spread, table
from bench.told import Teller, told_table
from fpt.config import compose
from fpt.runs.progress import quiet_libraries
from fpt.runs.run import open_run
from fpt.tasks.opening import open_task
from fpt.tasks.task import Example
from pretraining.lands import write_missing
from pretraining.world import records as world
from pretraining.world import scenes
from pretraining.world.lexicon import Relation

TUNED = [(task, row) for task in CLIMBING for row in (RATES if task == COMPARED else [VANILLA])]

INTRODUCTION = """\
# The embedded model, measured

{runs} runs of `fpt train` with {updates:,} updates of {batch_size}; validation splits of 500 examples, mean and
standard deviation over {seeds} seeds, each in a land of its own ({lands}). Learning rates were chosen on land
{chosen}: {rates}.
Scores are the last prompt's unless a column says otherwise.
"""
OF_CUSTOMS = """\
## Customs

"Question only" is logistic regression on the words of the question, hypothesis or query; "relation only" the best
answer for whoever knows which property is spoken of and which class is asked for; "rules told" the model without a
prompt where a text before the source states the rules (land {land}), as a perfect prompt would.
"""
OF_TOLD = """\
## The rules told, by part of the model

Greedy generation without a prompt, land {land}.
"""
OF_CLIMB = """\
## The climb of vanilla prompt tuning

The score after a share of the {updates} updates, and how much of its gain over the baseline is there after a tenth.
"""
OF_PARTIAL = """\
## A fixed part of the model alone, on {task}

"On its own part" is the score on the model that the prompt was tuned on; "last quarter" is how much it rose in the last
quarter of the updates.
"""
OF_SCHEDULES = """\
## Schedules, on {task}

"To pt's score" is as in `bench.leaderboard`; the gain at equal FLOPs is over pt's last validation with no more FLOPs.
Intervals are 95 % (Student's t over {seeds} lands). FLOPs are those of training and of scoring neurons.
"""
OF_PLAIN = """\
## Plain reading

`task.world=plain`, vanilla prompt tuning for 120 updates of 32, one seed.
"""


def on_whole(folder: Path) -> dict[str, float]:
    """What the last prompt of a run on a part of the model scores on the whole; of another run nothing."""
    config = open_run(folder).config
    if not config.schedule.partial_end:
        return {}
    from fpt.__main__ import main as fpt

    (stage,) = (folder / "stages").iterdir()
    task = [f"task={config.task.name}", f"task.land={config.task.land}"]
    words = [f"prompt.file={stage}/prompt.safetensors", *task, f"output={folder}/on_whole.jsonl"]
    with redirect_stdout(StringIO()) as said, redirect_stderr(StringIO()):
        assert fpt(["eval", *words, "--json"]) == 0
    scored = json.loads(said.getvalue())
    return {"on_whole": scored["metrics"][scored["metric"]]}


# Baselines ------------------------------------------------------------------------------------------------------------

_PASSAGE = {"boolq": " passage: ", "mnli": " premise: ", "squad_v2": " context: ", "record": " entities: "}


def question_only(task: str, words: Sequence[str]) -> float:
    """What the words of the question alone are good for: logistic regression on words and pairs of words.

    QQP has nothing but its questions, XSum only a document, whose words choose among the training summaries.
    """
    data = open_task(compose.load([f"task={task}", *words]))

    def asked(examples: Sequence[Example]) -> list[str]:
        return [example.source.split(_PASSAGE.get(task, "\n"))[0] for example in examples]

    some = data.train[:1000] if task in ("record", "xsum") else data.train
    model = make_pipeline(CountVectorizer(ngram_range=(1, 2), binary=True), LogisticRegression(max_iter=200, C=0.1))
    model.fit(asked(some), [example.golds[0] for example in some])
    answers = list(model.predict(asked(data.valid)))
    return data.score(answers, data.valid)[data.metric]


def relation_only(task: str, land: int) -> float:
    """The best answer by the property that a record speaks of and the class that it asks for, learned in training."""
    data = open_task(compose.load([f"task={task}", f"task.land={land}"]))
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for example in data.train:
        counted = counts.setdefault(_property(example.source, land), {})
        counted[example.golds[0]] = counted.get(example.golds[0], 0) + 1
    best = {key: max(counted, key=lambda answer: counted[answer]) for key, counted in counts.items()}
    answers = [best.get(_property(example.source, land), "") for example in data.valid]
    return data.score(answers, data.valid)[data.metric]


def _property(source: str, land: int) -> tuple[str, ...]:
    """The relation that most of a source's words are about, and the class that it names."""
    words = set(source.lower().replace(".", " ").replace("?", " ").split())

    def common(relation: Relation) -> int:
        templates = " ".join((*relation.states, *relation.contrasts, *relation.asks)).replace(".", " ").split()
        return len(
            words & ({word for word in templates if "{" not in word} | {value.lower() for value in relation.values})
        )

    asked = sorted(words & set(world.land_of(land).classes))
    return (max(scenes.RELATIONS_OF["person"], key=common).name, *asked, str("not" in words and "is not" in source))


# Tables ---------------------------------------------------------------------------------------------------------------


def customs_table(teller: Teller, seeds: Sequence[int]) -> str:
    """Every task under customs: what needs no prompt, and what a perfect one would give."""
    rows = []
    for task in world.CASES:
        first = open_task(compose.load([f"task={task}", f"task.land={LANDS[0]}"]))
        by_land = [[f"task.land={LANDS[seed]}"] for seed in seeds]
        row = [
            task,
            first.metric,
            f"{first.majority:.1f} ({first.baseline_name})",
            spread([question_only(task, words) for words in by_land]) if task in _PASSAGE else "–",
            spread([relation_only(task, LANDS[seed]) for seed in seeds]) if task not in ("record", "squad_v2") else "–",
        ]
        untrained = [RECORDS[name(task, "pt", seed)]["untrained"] for seed in made(task, "pt", seeds)]
        told = teller.score(task, LANDS[0], "whole")
        rows.append([*row, spread(untrained) if untrained else "–", f"{told:.1f}"])
    return table(("task", "metric", "baseline", "question only", "relation only", "untrained", "rules told"), rows)


def climb_table(seeds: Sequence[int]) -> str:
    """Vanilla prompt tuning's score after shares of its updates."""
    rows = []
    for task in CLIMBING:
        there = made(task, "pt", seeds)
        result = RECORDS[name(task, "pt", there[0])]
        means = {share: mean(at_share(task, seed, share) for seed in there) for share in SHARES}
        early = (means[SHARES[0]] - result["majority"]) / (means[1.0] - result["majority"])
        scores = [spread([at_share(task, seed, share) for seed in there]) for share in SHARES]
        rows.append([task, result["metric"]["name"], str(len(there)), *scores, f"{early:.0%}"])
    return table(("task", "metric", "lands", *(f"{share:.0%}" for share in SHARES), "of its gain at 10%"), rows)


def partial_table(task: str, parts: Sequence[str], seeds: Sequence[int]) -> str:
    """Parts of the model alone."""
    rows = []
    for row in ("pt", *parts):
        if not (there := made(task, row, seeds)):
            continue
        values = [last(task, row, seed) for seed in there]
        rose = mean(_rose(task, row, seed) for seed in there)
        whole = "–" if row == "pt" else spread([RECORDS[name(task, row, seed)]["on_whole"] for seed in there])
        against = interval([value - last(task, "pt", seed) for value, seed in zip(values, there, strict=True)])
        scores = [spread(values), "–" if row == "pt" else against, whole]
        rows.append([row, str(len(there)), *scores, f"{rose:+.1f}", _flops(task, row, there)])
    columns = ("prompt tuned on", "lands", "on its own part", "against pt", "on the whole model", "last quarter")
    return table((*columns, "FLOPs"), rows)


def _rose(task: str, row: str, seed: int) -> float:
    """The mean score of a run's last quarter of updates, less that of the quarter before."""
    values = [point.score for point in RECORDS.curve(name(task, row, seed))]
    quarter = len(values) // 4
    return mean(values[-quarter:]) - mean(values[-2 * quarter : -quarter])


def schedules_table(task: str, seeds: Sequence[int]) -> str:
    """Schedules on one task."""
    rows = []
    for row in SCHEDULES:
        there = made(task, row, seeds)
        values = [last(task, row, seed) for seed in there]
        against = [value - last(task, "pt", seed) for value, seed in zip(values, there, strict=True)]
        gains = [gain(task, row, seed) for seed in there]
        best = [RECORDS[name(task, row, seed)]["metric"]["value"] for seed in there]
        cells = [interval(against), _flops(task, row, there), interval(gains)]
        scores = [reached(task, row, there), spread(values), spread(best)]
        rows.append([row, *scores, *(["–", cells[1], "–"] if row == "pt" else cells)])
    columns = ("schedule", "to pt's score", "last prompt", "best prompt", "last against pt", "FLOPs")
    return table((*columns, "gain at equal FLOPs"), rows)


def interval(values: Sequence[float]) -> str:
    """A mean with half the width of its 95 % interval."""
    if len(values) == 1:
        return f"{values[0]:+.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):+.1f} ± {half:.1f}"


def _flops(task: str, row: str, seeds: Sequence[int]) -> str:
    return f"{flops_share(task, row, seeds):.1%}"


def plain_table(seeds: Sequence[int]) -> str:
    """Vanilla prompt tuning on every task of plain reading."""
    rows = []
    for task in world.TASKS:
        if name(task, "plain", seeds[0]) not in RECORDS:
            continue
        results = [RECORDS[name(task, "plain", seed)] for seed in seeds]
        rows.append(
            [
                task,
                results[0]["metric"]["name"],
                f"{results[0]['majority']:.1f} ({results[0]['baseline']})",
                f"{question_only(task, ['task.world=plain']):.1f}",
                spread([result["untrained"] for result in results]),
                spread([RECORDS.curve(name(task, "plain", seed))[0].score for seed in seeds]),
                spread([result["metric"]["last"] for result in results]),
            ]
        )
    return table(("task", "metric", "baseline", "question only", "untrained", "after 40", "last prompt"), rows)


# Runs -----------------------------------------------------------------------------------------------------------------


def wanted(seeds: Sequence[int], parts: Sequence[str]) -> dict[str, list[str]]:
    """Every run of the tables, land by land, so that fewer lands (`--seeds`) are soon complete."""
    kinds = [(COMPARED, row) for row in (*SCHEDULES, *parts)] + [(task, "pt") for task in CLIMBING if task != COMPARED]
    rows = [(*kind, seed) for seed in seeds for kind in kinds]
    plain = {name(task, "plain", seed): plain_overrides(task, seed) for seed in seeds[:ONE] for task in world.TASKS}
    return {name(*each): overrides(*each) for each in rows} | plain


def choices() -> dict[str, list[str]]:
    """The runs by which the rates are chosen."""
    return {
        name(*kind, f"choice-{rate}"): [*words_at(*kind, rate), f"task.land={CHOSEN_ON}", "train.eval_every=1000"]
        for kind in TUNED
        for rate in TRIED
    }


def choose(jobs: int) -> str:
    """The last prompt's score with every rate, on the land that is for choosing."""
    RECORDS.make(choices(), jobs)
    rows = [[*kind, *(f"{last(*kind, f'choice-{rate}'):.1f}" for rate in TRIED)] for kind in TUNED]
    return table(("task", "schedule", *(f"rate {rate}" for rate in TRIED)), rows)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.backbone", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, len(LANDS) + 1))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default %(default)s)")
    parser.add_argument(
        "--parts", nargs="+", default=list(PARTIAL), choices=list(PARTIAL), help="rows of Table 1 (default: all)"
    )
    parser.add_argument("--done", action="store_true", help="run nothing, and print of the runs that there are")
    parser.add_argument("--choose", action="store_true", help="print how the learning rates were chosen")
    options = parser.parse_args()
    quiet_libraries()
    if options.choose:
        print(choose(options.jobs), end="")
        return
    seeds = range(options.seeds)
    lands = ", ".join(str(LANDS[seed]) for seed in seeds)
    runs = wanted(seeds, options.parts)
    write_missing(LANDS)
    if not options.done:
        RECORDS.make(runs, options.jobs, on_whole)
    introduction = INTRODUCTION.format(
        runs=sum(run in RECORDS for run in runs),
        updates=UPDATES,
        batch_size=BATCH_SIZE,
        seeds=len(seeds),
        lands=lands,
        chosen=CHOSEN_ON,
        rates=", ".join(f"{RATES[row]:g} for {row}" for row in SCHEDULES),
    )
    teller = Teller()
    parts = [
        introduction,
        OF_CUSTOMS.format(land=LANDS[0]),
        customs_table(teller, seeds),
        OF_TOLD.format(land=LANDS[0]),
        told_table(teller, LANDS[:1]),
        OF_CLIMB.format(updates=UPDATES),
        climb_table(seeds),
        OF_PARTIAL.format(task=COMPARED),
        partial_table(COMPARED, options.parts, seeds),
        OF_SCHEDULES.format(task=COMPARED, seeds=len(seeds)),
        schedules_table(COMPARED, seeds),
        OF_PLAIN,
        plain_table(seeds[:ONE]),
    ]
    print("\n".join(parts), end="")


if __name__ == "__main__":
    main()
