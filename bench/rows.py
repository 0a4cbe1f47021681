"""The runs on the embedded model: what makes each row of the tables under customs, and what is read off its runs.

Every run is an ordinary `fpt train`; bench/results/backbone.jsonl keeps what came of it. Rates were chosen on land 1
(`python -m bench.backbone --choose`); each seed of the tables has a land of its own, of which nothing was chosen.
"""

from collections.abc import Sequence
from statistics import mean

from bench.records import Records
from bench.runs import spread
from stages.several import Point, reaches

RECORDS = Records("backbone")
UPDATES, BATCH_SIZE = 1500, 16
CHOSEN_ON, LANDS = 1, (2, 3, 4, 5, 6)  # the land that rates were chosen on, and those of the seeds
CLIMBING = ("boolq", "mnli", "xsum")  # tasks under customs whose climb is shown
COMPARED = "boolq"  # where the schedules and the partial PLMs are held against each other
ONE = 1  # seed of plain reading
VANILLA = "pt"
POINTS = 20  # validations of a run
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the updates, at which the climb is read off


def after(points: Sequence[Point], flops: float) -> float | None:
    """Return the score of the last validation up to that many FLOPs; None before the first."""
    scores = [point.score for point in points if point.flops <= flops]
    return scores[-1] if scores else None


def alone(depth: float | str, width: float | str) -> str:
    """A schedule of one partial PLM."""
    return f"schedule.stages=[{{depth: {depth}, width: {width}, share: 1}}]"


def staged(*stages: tuple[float, float], width: bool = True) -> str:
    """A schedule of parts of the model, each for a share of the updates; by depth and width, or by depth alone."""
    rows = []
    for part, share in stages:
        depth = "full" if part == 1 else part
        rows.append(f"{{depth: {depth}, width: {depth if width else 'full'}, share: {share}}}")
    return f"schedule.stages=[{', '.join(rows)}]"


SMALL = 8  # examples of an update where that is half of what it was, for twice as many updates
MOMENTUM = 0.9  # of 0.9 and 0.95 the better for half of the blocks alone on BoolQ in land 1
AVERAGE = 0.9  # of 0.9, 0.96, 0.98 and 0.99 the best for CR from half on XSum and MNLI in land 1
FROM_HALF = ((0.5, 0.3), (0.75, 0.3), (1, 0.4))  # the paper's stages without their first, whose share the others have


PARTIAL = {  # Table 1: the row, and what makes it
    f"{name} {part}": ["schedule=pt", alone(depth, width), "schedule.partial_end=true"]
    for part, share in (("1/4", 0.25), ("1/2", 0.5), ("3/4", 0.75))
    for name, depth, width in (("ld", share, "full"), ("fr", "full", share), ("cr", share, share))
}
SCHEDULES = {  # Table 2
    "pt": ["schedule=pt"],
    "ld": ["schedule=ld"],
    "fr": ["schedule=fr"],
    "cr": ["schedule=cr"],
    "ld from half": ["schedule=ld", staged(*FROM_HALF, width=False)],
    "cr from half": ["schedule=cr", staged(*FROM_HALF)],
}
FURTHER = {  # ways to fewer FLOPs than the paper's
    "fast": ["schedule=fast"],
    "half, then whole": ["schedule=cr", staged((0.5, 0.6), (1, 0.4))],
    "cr from half, short end": ["schedule=cr", staged((0.5, 0.4), (0.75, 0.35), (1, 0.25))],
    "cr from half, averaged": ["schedule=cr", staged(*FROM_HALF), f"optim.average={AVERAGE}"],
    "pt, averaged": ["schedule=pt", f"optim.average={AVERAGE}"],
    "cr from half, linear": ["schedule=cr", staged(*FROM_HALF), "optim.schedule=linear"],
    "pt, linear": ["schedule=pt", "optim.schedule=linear"],
    "cr from half, averaged, small batches": ["schedule=cr", staged(*FROM_HALF), f"optim.average={AVERAGE}"],
    "pt, small batches": ["schedule=pt"],
    "cr from half, averaged, momentum": [
        "schedule=cr",
        staged(*FROM_HALF),
        f"optim.average={AVERAGE}",
        f"optim.momentum={MOMENTUM}",
    ],
    "pt, momentum": ["schedule=pt", f"optim.momentum={MOMENTUM}"],
}
BATCHES = {"cr from half, averaged, small batches": SMALL, "pt, small batches": SMALL}  # the others have BATCH_SIZE
TRIED = (0.1, 0.3)
# The better of those tried: of the schedules on the task that compares them, of vanilla prompt tuning over all three.
RATES = {
    "pt": 0.3,
    "ld": 0.1,
    "fr": 0.3,
    "cr": 0.3,
    "ld from half": 0.3,
    "cr from half": 0.1,
    "half, then whole": 0.1,
    "cr from half, short end": 0.1,
    "cr from half, linear": 0.1,
    "pt, linear": 0.3,
    "cr from half, averaged, momentum": 0.3,
}
SAME_RATE = {  # as that row
    "fast": "cr from half",
    "cr from half, averaged": "cr from half",
    "cr from half, averaged, small batches": "cr from half",
    "pt, averaged": "pt",
    "pt, momentum": "pt",
    "pt, small batches": "pt",
}


def overrides(task: str, row: str, seed: int) -> list[str]:
    """What `fpt train` is told, but for the folder."""
    every = num_updates(row) // POINTS
    return [
        *words_at(task, row, rate_of(row)),
        f"seed={seed}",
        f"task.land={LANDS[seed]}",
        f"train.eval_every={every}",
    ]


def num_updates(row: str) -> int:
    """How many updates a row's runs have: as many examples as any other's."""
    return UPDATES * BATCH_SIZE // BATCHES.get(row, BATCH_SIZE)


def rate_of(row: str) -> float:
    """The learning rate of a row."""
    return RATES.get(SAME_RATE.get(row, row), RATES[VANILLA])  # parts alone have vanilla prompt tuning's


def words_at(task: str, row: str, rate: float) -> list[str]:
    """What a row's runs on a task are told at some rate, whatever their land."""
    size = BATCHES.get(row, BATCH_SIZE)
    recipe = [f"train.updates={num_updates(row)}", f"train.batch_size={size}", "train.save_every=200"]
    recipe.append("train.eval_partial=false")
    return [f"task={task}", *recipe, *{**SCHEDULES, **FURTHER, **PARTIAL}[row], f"optim.lr={rate}"]


def plain_overrides(task: str, seed: int) -> list[str]:
    """Of plain reading."""
    words = ["task.world=plain", "train.updates=120", "train.batch_size=32", "train.eval_every=40", "optim.lr=0.3"]
    return [f"task={task}", "schedule=pt", f"seed={seed}", *words]


def name(task: str, row: str, seed: int | str) -> str:
    """What a run is called."""
    return f"{task}-{row}-s{seed}".replace(",", "").replace(" ", "-").replace("/", "-")


def made(task: str, row: str, seeds: Sequence[int]) -> list[int]:
    """The seeds of which there are runs, vanilla prompt tuning's too."""
    return [seed for seed in seeds if name(task, row, seed) in RECORDS and name(task, "pt", seed) in RECORDS]


def last(task: str, row: str, seed: int | str) -> float:
    """The last prompt's score on the model that it was tuned on."""
    value: float = RECORDS[name(task, row, seed)]["metric"]["last"]
    return value


def at_share(task: str, seed: int, share: float) -> float:
    """Vanilla prompt tuning's score after a share of its updates."""
    return {look.update: look.score for look in RECORDS.looks(name(task, "pt", seed))}[round(share * UPDATES)]


def gain(task: str, row: str, seed: int) -> float:
    """Over vanilla prompt tuning's last validation with no more FLOPs."""
    there = after(RECORDS.curve(name(task, "pt", seed)), RECORDS[name(task, row, seed)]["flops"])
    assert there is not None
    return last(task, row, seed) - there


def after_half(task: str, row: str, seed: int) -> float | None:
    """The full model's score after half of vanilla prompt tuning's FLOPs; None: it was not trained on by then."""
    return after(RECORDS.curve(name(task, row, seed)), RECORDS[name(task, "pt", seed)]["flops"] / 2)


def to_vanilla(task: str, row: str, seed: int) -> float | None:
    """The share of vanilla prompt tuning's FLOPs at which a run has its last score in the same land; None: never."""
    vanilla = RECORDS[name(task, "pt", seed)]
    spent = reaches(RECORDS.curve(name(task, row, seed)), vanilla["metric"]["last"])
    return None if spent is None else spent / vanilla["flops"]


def flops_share(task: str, row: str, seeds: Sequence[int]) -> float:
    """All that a row's runs spend, as a share of vanilla prompt tuning's; the mean over seeds."""
    return mean(RECORDS[name(task, row, seed)]["flops"] / RECORDS[name(task, VANILLA, seed)]["flops"] for seed in seeds)


def mean_curve(task: str, row: str, seeds: Sequence[int]) -> list[Point]:
    """The mean over runs of what their validations on the full model show, against what these had spent."""
    curves = [RECORDS.curve(name(task, row, seed)) for seed in seeds]
    return [
        Point(round(mean(flops)), mean(scores))
        for flops, scores in (zip(*looks, strict=True) for looks in zip(*curves, strict=True))
    ]


def mean_to_vanilla(task: str, row: str, seeds: Sequence[int]) -> float | None:
    """The share of vanilla prompt tuning's FLOPs at which the mean curve has the mean of its last scores."""
    wanted = mean(last(task, VANILLA, seed) for seed in seeds)
    spent = reaches(mean_curve(task, row, seeds), wanted)
    return None if spent is None else spent / mean(RECORDS[name(task, VANILLA, seed)]["flops"] for seed in seeds)


def reached(task: str, row: str, seeds: Sequence[int]) -> str:
    """The mean of those shares, and in how many lands there is one."""
    shares = [100 * share for seed in seeds if (share := to_vanilla(task, row, seed)) is not None]
    return (f"{spread(shares)} %" if shares else "never") + f" ({len(shares)} of {len(seeds)})"
