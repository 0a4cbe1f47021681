"""Reads and checks every record of a task's splits, makes examples of them, and draws those that are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from fpt.config.mixture import tasks_of
from fpt.config.run_config import RunConfig
from fpt.errors import UserError
from fpt.tasks import origins
from fpt.tasks.answers import class_weights
from fpt.tasks.catalogue import asked_test_split, data_of, is_own, rules_of
from fpt.tasks.fields import Faults, readable
from fpt.tasks.mixture import mixed
from fpt.tasks.task import ANSWER, Example, Task, TaskRules

SEVERAL = 4  # a label with so many examples has at least one held out, however small the share
ALL = "all"  # the one group of a task without labels
FEW = 50  # with fewer validation examples than this, one answer moves the score by more than two points


def open_task(config: RunConfig) -> Task:
    """The task's examples as text, or those of all tasks of a mixture, read and checked whole."""
    if config.task.of is not None:
        return mixed(config, {name: open_task(own) for name, own in tasks_of(config).items()})
    task, rules = config.task, rules_of(config.task)
    test_split = asked_test_split(config, rules)
    splits = _Splits(rules, data_of(config, rules), Faults(skip=task.on_error == "skip"))
    train, valid, notes = _to_learn_and_validate(config, splits)
    test = [] if test_split is None else splits.first(test_split, None)
    baseline_name, answers = rules.baseline(train, valid)
    origin = " and ".join(filter(None, (task.train, task.valid))) or rules.records.describe(splits.data)
    return Task(
        **vars(rules),
        name=task.name,
        train=train,
        valid=valid,
        origin=f"{origin}, {task.valid_split}" if len(rules.records.validations) > 1 else origin,
        notes=(*splits.faults.notes, *notes),
        skipped=tuple(splits.faults.messages),
        baseline_name=baseline_name,
        majority=rules.score(answers, valid)[rules.metric],
        class_weights=class_weights(task, rules, train),
        test_split=test_split,
        test=test,
    )


def _to_learn_and_validate(config: RunConfig, splits: "_Splits") -> tuple[list[Example], list[Example], list[str]]:
    """The examples to train on, the examples to validate on, and notes about both for the user."""
    task, rules, notes = config.task, splits.rules, list[str]()
    seed = config.seed if task.sample_seed is None else task.sample_seed
    train = splits.first("train", task.train_examples)
    if (is_own(task) and task.valid is None) or origins.is_whole(rules.records, splits.data):
        train, valid = _split_off(train, task.valid_share, config.seed, labels=rules.classes)
        share = f"{len(valid):,} of its {len(train) + len(valid):,} examples"
        file = task.train or origins.file_of(rules.records, splits.data, "train")
        without = "there is no task.valid" if is_own(task) else "there is no other file"
        notes.append(f"{file}: {share} are for validation, drawn with the seed, as {without}")
        if (few := task.valid_examples or len(valid)) < len(valid):  # a file that is sorted begins with one label
            valid = _shots_of_each(valid, few, config.seed, labels=())
    else:
        valid = splits.first(task.valid_split, task.valid_examples)
    if task.shots is not None:
        train = _shots_of_each(train, task.shots, seed, labels=rules.classes)
    if rules.each_gold:
        each = ((example, gold) for example in train for gold in example.golds)
        train = [
            example._replace(target=ANSWER.format(answer=gold), golds=(gold,))
            for example, gold in islice(each, task.train_examples)
        ]
    if unseen := [label for label, members in _by_label(train, rules.classes).items() if not members]:
        cut = ": a sorted file begins with others; task.shots=N draws N of each label" if task.train_examples else ""
        notes.append(f"no training example has the label {', '.join(unseen)}{cut}")
    if is_own(task) and len(valid) < FEW:
        points = f"of {len(valid)} validation examples one answer is {100 / len(valid):.1f} points of the score"
        notes.append(f"{points}; more say more: task.valid, or a larger task.valid_share")
    return train, valid, notes


@dataclass(frozen=True)
class _Splits:
    """Reads a task's splits from its data, by its rules."""

    rules: TaskRules
    data: str
    faults: Faults

    def first(self, split: str, num: int | None) -> list[Example]:
        """The first `num` examples of a split; None: all."""
        examples = list(islice(self._examples(split), num))
        if not examples:
            records, skipped = self.rules.records, self.faults.messages
            first = f": every record was skipped, the first as {skipped[0]}" if skipped else ""
            place = f"task.data={self.data}" if records.hub else records.splits[split].files[0]
            raise UserError(f"{place}: the {split} split is empty{first}")
        return examples

    def _examples(self, split: str) -> Iterator[Example]:
        ids: set[str] = set()
        answered: dict[bool, str] = {}  # the places of the first record with an answer and of the first without one
        for where, record in origins.records(self.rules.records, self.data, split, self.faults):
            with self.faults:
                prepared = self.rules.records.prepare(record, where)
                example = self.rules.example(prepared, where, is_test=split.startswith("test"))
                readable(example.id, f"{where}: the id")
                if example.id in ids:
                    raise UserError(f"{where}: the id '{example.id}' occurs a second time; make ids unique")
                ids.add(example.id)
                answered.setdefault(bool(example.golds), where)
                if len(answered) == 1:
                    yield example
            if len(answered) > 1:  # never skipped: the rest's score would pass for the whole split's
                raise UserError(
                    f"{answered[True]}: has a label or an answer, and {answered[False]} has none; a test split is"
                    " scored whole or not at all, so add those that are missing, or take out all"
                )


def _split_off(examples: Sequence[Example], share: float, seed: int, *, labels: Sequence[str]) -> list[list[Example]]:
    """Hold out a sample: the examples that remain, and the sample, both in the data's order.

    The sample is stratified by label with largest remainders; a label with SEVERAL examples or more gives at least one.
    """
    if len(examples) < 2:
        raise UserError("task.train: one example cannot be parted into training and validation; give task.valid")
    members = _by_label(examples, labels)
    counts = _proportional({label: len(indices) for label, indices in members.items()}, share)
    sample = _sample(members, counts, seed, "validation of {}" if labels else "validation")
    rest = sorted(set(range(len(examples))) - set(sample))
    return [[examples[index] for index in part] for part in (rest, sample)]


def _shots_of_each(examples: Sequence[Example], shots: int, seed: int, *, labels: Sequence[str]) -> list[Example]:
    """A sample of `shots` examples of each label, or of all if there are no labels, in the data's order."""
    members = _by_label(examples, labels)
    label, fewest = min(members.items(), key=lambda member: len(member[1]))
    if len(fewest) < shots:
        of = f" of '{label}'" if labels else ""
        there = f"there are only {len(fewest)} training examples{of}"
        raise UserError(f"task.shots={shots}: {there}; give a smaller number, or add some")
    return [examples[index] for index in _sample(members, dict.fromkeys(members, shots), seed, "shots of {}")]


def _by_label(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, list[int]]:
    """The indices of each label's examples; without labels there is one group, ALL."""
    members: dict[str, list[int]] = {label: [] for label in labels or (ALL,)}
    for index, example in enumerate(examples):
        members[example.golds[0] if labels else ALL].append(index)
    return members


def _sample(members: Mapping[str, list[int]], counts: Mapping[str, int], seed: int, purpose: str) -> list[int]:
    """Draw `counts` of each label's examples, from one random stream per label; their indices, in ascending order."""
    from fpt.random_streams import drawn

    return sorted(
        indices[position]
        for label, indices in members.items()
        for position in drawn(len(indices), counts[label], seed, purpose.format(label))
    )


def _proportional(sizes: Mapping[str, int], share: float) -> dict[str, int]:
    """How many to draw of each group, in proportion to the groups' sizes; at least one of each that has SEVERAL."""
    total = max(1, round(share * sum(sizes.values())))
    counts = {label: max(int(share * size), int(size >= SEVERAL)) for label, size in sizes.items()}
    lacking = sorted(sizes, key=lambda label: counts[label] - share * sizes[label])  # furthest below its share first
    for label in lacking[: max(0, total - sum(counts.values()))]:
        counts[label] += 1
    return counts
