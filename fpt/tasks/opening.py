"""A task's examples as text: every record read, and checked."""

from collections.abc import Iterator
from itertools import islice

from fpt.config.run_config import RunConfig
from fpt.errors import UserError
from fpt.tasks import origins, sampling
from fpt.tasks.catalogue import VALID_SHOTS, data_of, is_own, rules_of
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord, readable
from fpt.tasks.splits import asked_test_split, check_validation_split, is_drawn, parts_of, validation_splits
from fpt.tasks.task import ANSWER, Example, Task, TaskRules

FEW = 50  # validation examples of the user's own, below which one answer moves a score by two points and more


def open_task(config: RunConfig) -> Task:
    """The task's examples as text, read and checked whole."""
    task, rules = config.task, rules_of(config.task)
    check_validation_split(config, rules)
    test_split = asked_test_split(config, rules)
    data, faults, notes = data_of(config, rules), Faults(skip=task.on_error == "skip"), list[str]()
    train = _examples(rules, data, "train", task.train_examples, faults)
    valid, test, seed = list[Example](), list[Example](), config.seed if task.sample_seed is None else task.sample_seed
    if is_drawn(task):
        assert task.shots is not None
        train, valid = sampling.as_lpt_draws(train, task.shots, task.valid_shots or VALID_SHOTS, seed, rules.labels)
        test = _validation(rules, data, task.valid_split, task.valid_examples, faults)
    elif (is_own(task) and task.valid is None) or origins.is_whole(rules.records, data):
        train, valid = sampling.split_off(train, task.valid_share, config.seed, labels=rules.labels)
        share = f"{len(valid):,} of its {len(train) + len(valid):,} examples"
        file = task.train or origins.file_of(rules.records, data, "train")
        without = "there is no task.valid" if is_own(task) else "there is no other file"
        notes.append(f"{file}: {share} are for validation, drawn with the seed, as {without}")
        valid = valid[: task.valid_examples]
    else:
        valid = _validation(rules, data, task.valid_split, task.valid_examples, faults)
    if test_split and not test:
        test = _examples(rules, data, test_split, None, faults)
    if task.shots is not None and not is_drawn(task):
        train = sampling.shots_of_each(train, task.shots, seed, labels=rules.labels)
    if rules.each_gold:
        train = [
            example._replace(target=ANSWER.format(answer=gold), golds=(gold,))
            for example in train
            for gold in example.golds
        ][: task.train_examples]
    if is_own(task) and len(valid) < FEW:
        points = f"of {len(valid)} validation examples one answer is {100 / len(valid):.1f} points of the score"
        notes.append(f"{points}; more say more: task.valid, or a larger task.valid_share")
    baseline_name, answers = rules.baseline(train, valid)
    origin = " and ".join(dict.fromkeys(filter(None, (task.train, task.valid)))) or rules.records.describe(data)
    return Task(
        **vars(rules),
        name=task.name,
        train=train,
        valid=valid,
        origin=f"{origin}, {task.valid_split}" if len(validation_splits(rules)) > 1 and not is_drawn(task) else origin,
        notes=(*faults.notes, *notes),
        skipped=tuple(faults.messages),
        baseline_name=baseline_name,
        majority=rules.score(answers, valid)[rules.metric],
        test_split=test_split,
        test=test,
    )


def _validation(rules: TaskRules, data: str, split: str, num: int | None, faults: Faults) -> list[Example]:
    """The first `num` examples of a validation or test split, or of each of those that it is made of."""
    parts = parts_of(split, rules)
    if len(parts) == 1:
        return _examples(rules, data, split, num, faults)
    return [
        example._replace(id=f"{part}-{example.id}", group=part)
        for part in parts
        for example in _examples(rules, data, part, num, faults)
    ]


def _examples(rules: TaskRules, data: str, split: str, num: int | None, faults: Faults) -> list[Example]:
    """A split's first `num` examples."""
    records = origins.records(rules.records, data, split, faults)
    examples = list(islice(_read(records, rules, split, faults), num))
    if not examples:
        first = f": every record was skipped, the first as {faults.messages[0]}" if faults.messages else ""
        place = rules.records.split(split).files[0] if rules.records.is_own else f"task.data={data}"
        raise UserError(f"{place}: the {split} split is empty{first}")
    return examples


def _read(records: Iterator[PlacedRecord], rules: TaskRules, split: str, faults: Faults) -> Iterator[Example]:
    """A split's records as examples."""
    is_test = split in rules.records.tests
    ids: set[str] = set()
    first: dict[bool, str] = {}  # where the first record is that has an answer, and that has none
    for where, record in records:
        try:
            prepared = rules.records.prepare(record, where)
            answered = not is_test or rules.answered(prepared)
            example = rules.example(prepared, where) if answered else rules.question(rules.template, prepared, where)
            readable(example.id, f"{where}: the id")
            if example.id in ids:
                raise UserError(f"{where}: the id '{example.id}' occurs a second time; make ids unique")
        except UserError as error:
            faults.add(error)
            continue
        ids.add(example.id)
        first.setdefault(answered, where)
        if len(first) > 1:  # even where such are skipped: the rest would be taken for the whole
            raise UserError(
                f"{first[True]}: has a label or an answer, and {first[False]} has none; a test split is scored"
                " whole or not at all, so add those that are missing, or take out all"
            )
        yield example
