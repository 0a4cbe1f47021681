"""Reads and checks every record of a task's splits, and makes examples of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from fpt.config.run_config import RunConfig
from fpt.errors import UserError
from fpt.tasks import origins, sampling
from fpt.tasks.catalogue import is_own, rules_of
from fpt.tasks.fields import Faults, Record, readable
from fpt.tasks.labels import class_weights
from fpt.tasks.splits import VALID_SHOTS, asked_test_split, data_of, is_drawn
from fpt.tasks.task import ANSWER, Example, Task, TaskRules

FEW = 50  # with fewer validation examples than this, one answer moves the score by more than two points


def open_task(config: RunConfig) -> Task:
    """The task's examples as text, read and checked whole."""
    task, rules = config.task, rules_of(config.task)
    test_split = asked_test_split(config, rules)
    splits = _Splits(rules, data_of(config, rules), Faults(skip=task.on_error == "skip"))
    train, valid, notes = _to_learn_and_validate(config, splits)
    test = [] if test_split is None else splits.first(test_split, task.valid_examples if is_drawn(task) else None)
    baseline_name, answers = rules.baseline(train, valid)
    origin = " and ".join(filter(None, (task.train, task.valid))) or rules.records.describe(splits.data)
    is_one_of_several = len(rules.records.validations) > 1 and not is_drawn(task)
    return Task(
        **vars(rules),
        name=task.name,
        train=train,
        valid=valid,
        origin=f"{origin}, {task.valid_split}" if is_one_of_several else origin,
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
    if is_drawn(task):
        assert task.shots is not None
        train, valid = sampling.as_lpt_draws(train, task.shots, task.valid_shots or VALID_SHOTS, seed, rules.classes)
    elif (is_own(task) and task.valid is None) or origins.is_whole(rules.records, splits.data):
        train, valid = sampling.split_off(train, task.valid_share, config.seed, labels=rules.classes)
        share = f"{len(valid):,} of its {len(train) + len(valid):,} examples"
        file = task.train or origins.file_of(rules.records, splits.data, "train")
        without = "there is no task.valid" if is_own(task) else "there is no other file"
        notes.append(f"{file}: {share} are for validation, drawn with the seed, as {without}")
        if (few := task.valid_examples or len(valid)) < len(valid):  # a file that is sorted begins with one label
            valid = sampling.shots_of_each(valid, few, config.seed, labels=())
    else:
        valid = splits.first(task.valid_split, task.valid_examples)
    if task.shots is not None and not is_drawn(task):
        train = sampling.shots_of_each(train, task.shots, seed, labels=rules.classes)
    if rules.each_gold:
        each = ((example, gold) for example in train for gold in example.golds)
        train = [
            example._replace(target=ANSWER.format(answer=gold), golds=(gold,))
            for example, gold in islice(each, task.train_examples)
        ]
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
            place = records.splits[split].files[0] if records.is_own else f"task.data={self.data}"
            raise UserError(f"{place}: the {split} split is empty{first}")
        return examples

    def _examples(self, split: str) -> Iterator[Example]:
        ids: set[str] = set()
        answered: dict[bool, str] = {}  # the places of the first record with an answer and of the first without one
        for where, record in origins.records(self.rules.records, self.data, split, self.faults):
            with self.faults:
                example = self._example(record, where, is_test=split.startswith("test"))
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

    def _example(self, record: Record, where: str, *, is_test: bool) -> Example:
        """The example that a record describes; only in a test split may its answer be missing."""
        rules, record = self.rules, self.rules.records.prepare(record, where)
        unanswered = is_test and not rules.has_answer(record)
        example = rules.question(record, where) if unanswered else rules.example(record, where)
        readable(example.id, f"{where}: the id")
        return example
