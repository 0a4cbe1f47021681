"""The arms that are compared with vanilla prompt tuning on real models: each is some words of `fpt train` or PEFT's.

Every arm is asked for at fpt's own defaults but where its words say otherwise; `python -m bench.real --tune` tries
its three rates on a seed of their own, and the best goes into its words.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

VANILLA, PEFT = "pt", "peft"
BATCH_SIZE, LOOKS, LOOKED_AT, SCORED = 8, 10, 100, 500  # validations of a run, examples of each, and at its end
TUNED_ON = 7  # the seed of `--tune`
UPDATES = {"trec": 300, "sst2": 150, "subj": 150}  # after which vanilla prompt tuning gains little
TASKS = tuple(UPDATES)
MODELS = {"smollm2": TASKS, "gemma3": ("trec",)}  # folders of `--models`, and the tasks that each is tried on


class Arm(NamedTuple):
    """One way to train a prompt."""

    words: tuple[str, ...]
    rates: tuple[float, ...] = ()  # that `--tune` tries


ARMS = {  # the most telling first
    VANILLA: Arm(("schedule=pt",), (0.01, 0.02, 0.03)),
    PEFT: Arm(()),
    "suffix": Arm(("schedule=pt", "prompt=suffix"), (0.02, 0.04, 0.08)),
    "late": Arm(("prompt=late", "optim.lr=0.01"), (0.003, 0.01, 0.03)),
    "cr": Arm(("schedule=cr",)),
    "cr-evenly": Arm(("schedule=cr", "schedule.blocks=evenly")),  # the paper's choice of blocks
    "fr": Arm(("schedule=fr",)),
    "ld": Arm(("schedule=ld",)),
    "cr-half": Arm(("schedule=cr-half",)),
    "fast": Arm(("schedule=fast",)),
    "bos": Arm(("schedule=pt", "task.add_bos_token=true")),
    "chat": Arm(("schedule=pt", "task.chat=true")),
}
# PEFT's rates to try, the best first. Its vectors are as large as what enters the first block, and a Gemma multiplies
# its embeddings there by the root of their width.
PEFT_RATES = {"smollm2": (0.01, 0.02, 0.03), "gemma3": (0.1, 0.03, 0.3)}
SHARES = (0.25, 0.5, 0.75)
COMPRESSED = {"ld": ("depth",), "fr": ("width",), "cr": ("depth", "width")}
# The paper's Table 1: a prompt is trained on a part, then put into the full model, whose last updates hardly move it.
PARTS = {
    f"{name}-{share}": Arm(
        (
            f"schedule.stages=[{{{', '.join(f'{side}: {share}' for side in sides)}, share: 0.99}}, {{share: 0.01}}]",
            "train.eval_partial=true",
        )
    )
    for name, sides in COMPRESSED.items()
    for share in SHARES
}


class Kind(NamedTuple):
    """A run to make, wherever models, data and its folder are."""

    model: str
    task: str
    arm: str
    seed: int
    updates: int
    rate: float | None = None  # of `--tune`; None: the arm's own
    shots: int | None = None  # training examples of each label; None: all

    @property
    def name(self) -> str:
        """The run's name, in results and on disk."""
        arm = self.arm if self.rate is None else f"{self.arm}@{self.rate:g}"
        few = "" if self.shots is None else f"-k{self.shots}"
        return f"{self.model}-{self.task}-{arm}-s{self.seed}-u{self.updates}{few}"

    @property
    def words(self) -> list[str]:
        """The words of `fpt train` that decide the result; a row that was made with other words counts as missing."""
        every = max(1, self.updates // LOOKS)
        words = [
            f"task={self.task}",
            *(ARMS | PARTS)[self.arm].words,
            *([f"optim.lr={PEFT_RATES[self.model][0]}"] if self.arm == PEFT else []),
            f"seed={self.seed}",
            f"train.updates={self.updates}",
        ]
        words += [f"train.batch_size={BATCH_SIZE}", f"train.eval_every={every}", f"train.eval_examples={LOOKED_AT}"]
        words += [f"task.valid_examples={SCORED}"]
        words += [] if self.shots is None else [f"task.shots={self.shots}"]
        return words if self.rate is None else [*words, f"optim.lr={self.rate}"]

    def command(self, models: Path, data: Path, dtype: str, folder: Path) -> list[str]:
        """The module and words that make the run."""
        places = [f"model={models / self.model}", f"task.data={data / self.task}", f"run.dir={folder}/run"]
        places += [f"engine.dtype={dtype}"]
        module = ["bench.real.peft_side"] if self.arm == PEFT else ["fpt", "train"]
        return [*module, *self.words, *places]


def rates_of(model: str, arm: str) -> tuple[float, ...]:
    """The rates of an arm that `--tune` tries on a model."""
    return PEFT_RATES[model] if arm == PEFT else ARMS[arm].rates


def in_turn(
    model: str,
    tasks: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    updates: Mapping[str, int] = UPDATES,
    shots: int | None = None,
) -> list[Kind]:
    """A model's runs, the most telling first: PEFT beside vanilla, all of vanilla's, then each arm's first seed."""

    def each(names: Sequence[str], some: Sequence[int]) -> Iterator[Kind]:
        return (
            Kind(model, task, arm, seed, updates[task], shots=shots)
            for seed in some
            for arm in names
            for task in tasks
            if arm in arms and task in MODELS[model]
        )

    by_task = sorted(each((VANILLA, PEFT), seeds[:1]), key=lambda kind: tasks.index(kind.task))
    return list(dict.fromkeys([*by_task, *each((VANILLA,), seeds), *each(list(ARMS | PARTS), seeds)]))
