"""What the prompt is trained for: tasks as text to text."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from fpt.config.schema import RunConfig, TaskConfig
from fpt.errors import UserError, did_you_mean
from fpt.tasks import labels, origins, ratings, reading, summary
from fpt.tasks import own_files as files
from fpt.tasks.origins import Omissions
from fpt.tasks.task import ANSWER, Example, Task, TaskForm

FORMS: dict[str, TaskForm] = {**labels.FORMS, **ratings.FORMS, **reading.FORMS, **summary.FORMS}
PUBLISHED = {  # training examples of the tasks as the Hub has them
    "boolq": 9_427,
    "cb": 250,
    "cola": 8_551,
    "copa": 400,
    "mnli": 392_702,
    "mrpc": 3_668,
    "multirc": 27_243,
    "qnli": 104_743,
    "qqp": 363_846,
    "rte": 2_490,
    "squad_v2": 130_319,
    "sst2": 67_349,
    "stsb": 5_749,
    "wic": 5_428,
    "wnli": 635,
    "wsc": 554,
    "xsum": 204_045,
}


def open_task(config: RunConfig) -> Task:
    """The task's examples as text, read and checked whole.

    Raises:
        UserError: a source that cannot be reached, a malformed record, or an empty split.
    """
    task = config.task
    form = form_of(task)
    allowed = [split for split in form.records.splits if split != "train"]
    if task.valid_split not in allowed:
        raise UserError(f"task.valid_split={task.valid_split}: {task.name} has {' and '.join(allowed)}")
    omissions = Omissions(skip=task.on_error == "skip")
    data = data_of(config, form)
    test_split = asked_test_split(config, form)
    train = _examples(form, data, "train", task.train_examples, omissions)
    notes: tuple[str, ...] = ()
    if _is_own(task) and task.valid is None:
        train, valid = _parted(train, task.valid_share, config.seed)
        share = f"{len(valid):,} of its {len(train) + len(valid):,} examples"
        notes = (f"{task.train}: {share} are for validation, drawn with the seed, as there is no task.valid",)
        valid = valid[: task.valid_examples]
    else:
        valid = _examples(form, data, task.valid_split, task.valid_examples, omissions)
    test = _examples(form, data, test_split, None, omissions) if test_split else []
    if task.shots is not None:
        train = _shots(train, task.shots, config.seed, labels=form.labels)
    if form.each_gold:
        train = [
            example._replace(target=ANSWER.format(answer=gold), golds=(gold,))
            for example in train
            for gold in example.golds
        ][: task.train_examples]
    baseline_name, answers = form.baseline(train, valid)
    origin = " and ".join(filter(None, (task.train, task.valid))) or form.records.origin(data)
    return Task(
        **vars(form),
        name=task.name,
        train=train,
        valid=valid,
        origin=f"{origin}, {task.valid_split}" if len(allowed) > 1 else origin,
        notes=(*omissions.notes, *notes),
        baseline_name=baseline_name,
        majority=form.score(answers, valid)[form.metric],
        test_split=test_split,
        test=test,
    )


def form_of(task: TaskConfig) -> TaskForm:
    """The task's rules, with the user's template where there is one.

    Raises:
        UserError: no such task, or a setting that it does not have.
    """
    if _is_own(task):
        if task.template is not None:
            raise UserError("task.template is for tasks that have one of their own; for task=files give task.source")
        return files.form(task)
    if task.name not in FORMS:
        raise UserError(f"task.name={task.name}: allowed are {', '.join(FORMS)}.{did_you_mean(task.name, FORMS)}")
    files.check_unused(task)
    form = FORMS[task.name]
    if task.template is None:
        return form
    template = replace(form.template, text=task.template)
    template.check("task.template", form.template.fields, task.name)
    return replace(form, template=template)


def asked_test_split(config: RunConfig, form: TaskForm) -> str | None:
    """The test split that is asked for, if one is.

    Raises:
        UserError: the task has no such split.
    """
    task, tests = config.task, form.records.tests
    own = _is_own(task)
    wanted = "test" if own and task.test and task.test_split is None else task.test_split
    if wanted is None:
        return None
    key = f"task.test_split={wanted}"
    if own and not tests:
        raise UserError(f"{key}: for task=files give task.test=FILE, or leave it out")
    if wanted not in tests:
        raise UserError(f"{key}: {task.name} has {' and '.join(tests)}.{did_you_mean(wanted, tests)}")
    if not tests[wanted].files and data_of(config, form) != "world":
        raise UserError(
            f"{key}: {task.name} has no public test split; leave it out, or give questions of yours as task=files"
            " with task.test=FILE"
        )
    return wanted


def with_split(config: RunConfig, split: str | None) -> RunConfig:
    """The configuration under which a split is read: a validation split's name, a test split's, or train.

    Raises:
        UserError: the task has no such split.
    """
    form = form_of(config.task)
    only_valid = replace(config.task, test_split=None, test=None)
    valid = [name for name in form.records.splits if name != "train"]
    if split is None or split == "train" or (split == "validation" and split not in valid):
        return replace(config, task=only_valid)
    if split in valid:
        return replace(config, task=replace(only_valid, valid_split=split))
    if split in form.records.tests:
        return replace(config, task=replace(config.task, test_split=split))
    allowed = ["train", *valid, *form.records.tests]
    raise UserError(f"split={split}: {config.task.name} has {', '.join(allowed)}.{did_you_mean(split, allowed)}")


def most_train_examples(config: RunConfig) -> int | None:
    """How many training examples there are at most, without reading them; None where that is not known."""
    from fpt.tasks.world import records as world  # here, because `python -m fpt.tasks.world` would import itself twice

    task = config.task
    if _is_own(task):
        return task.train_examples
    form = form_of(task)
    data = data_of(config, form)
    if task.shots is not None and not form.each_gold:
        return task.shots * max(1, len(form.labels))
    if form.each_gold or data not in ("world", "hub"):
        return task.train_examples
    if data == "world":  # which makes as many as are asked for
        return task.train_examples or world.SIZES["train"]
    return min(filter(None, (task.train_examples, PUBLISHED.get(task.name))), default=None)


def _is_own(task: TaskConfig) -> bool:
    """Whether the data are the user's: task=files, under whatever name."""
    return task.name == "files" or (task.train is not None and task.name not in FORMS)


def data_of(config: RunConfig, form: TaskForm) -> str:
    """Where the data are: 'world', 'hub' or a folder."""
    if _is_own(config.task):
        return "."
    generated = config.model.weights == "embedded" and form.records.generated
    return ("world" if generated else "hub") if config.task.data == "auto" else config.task.data


def _examples(form: TaskForm, data: str, split: str, wanted: int | None, omissions: Omissions) -> list[Example]:
    """A split's first `wanted` examples.

    Raises:
        UserError: a malformed record, an id that occurs twice, no example at all, or a test split of which some
            records have answers and some have none.
    """
    records = origins.records(form.records, data, split, least=wanted or 0, omissions=omissions)

    template, prepare, is_test = form.template, form.records.prepare, split in form.records.tests

    def read() -> Iterator[Example]:
        seen: set[str] = set()
        first: dict[bool, str] = {}  # where the first record is that has an answer, and that has none
        for where, record in records:
            try:
                record = prepare(record, where)
                answered = not is_test or form.answered(record)
                example = form.example(record, where) if answered else form.question(template, record, where)
            except UserError as error:
                omissions.fault(error)
                continue
            if example.id in seen:
                omissions.fault(
                    UserError(
                        f"{where}: the id '{example.id}' occurs a second time; make ids unique, or skip the second"
                        " with task.on_error=skip"
                    )
                )
                continue
            seen.add(example.id)
            first.setdefault(answered, where)
            if len(first) > 1:  # even where such are skipped: the rest would be taken for the whole
                raise UserError(
                    f"{first[True]}: has a label or an answer, and {first[False]} has none; a test split is scored"
                    " whole or not at all, so add those that are missing, or take out all"
                )
            yield example

    examples = list(islice(read(), wanted))
    if not examples:
        first = f": every record was skipped, the first as {omissions.faults[0]}" if omissions.faults else ""
        place = form.records.split(split).files[0] if form.records.is_own else f"task.data={data}"
        raise UserError(f"{place}: the {split} split is empty{first}")
    return examples


def _parted(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples without a sample of them, and the sample, both in their own order."""
    if len(examples) < 2:
        raise UserError("task.train: one example cannot be parted into training and validation; give task.valid")
    drawn = _drawn(len(examples), max(1, round(share * len(examples))), seed, "validation")
    return (
        [example for index, example in enumerate(examples) if index not in drawn],
        [example for index, example in enumerate(examples) if index in drawn],
    )


def _shots(examples: Sequence[Example], shots: int, seed: int, *, labels: Sequence[str]) -> list[Example]:
    """A sample of `shots` examples of each label, or of all, in their own order.

    Raises:
        UserError: there are fewer.
    """
    members: dict[str, list[int]] = {label: [] for label in labels or ("all",)}
    for index, example in enumerate(examples):
        members[example.golds[0] if labels else "all"].append(index)
    label, fewest = min(members.items(), key=lambda member: len(member[1]))
    if len(fewest) < shots:
        there = {0: "are no training examples", 1: "is only 1 training example"}
        of = f" of '{label}'" if labels else ""
        way_out = "give a smaller number" if fewest else "leave out task.shots, or add some"
        raise UserError(
            f"task.shots={shots}: there {there.get(len(fewest), f'are only {len(fewest)} training examples')}{of};"
            f" {way_out}"
        )
    kept = {
        indices[position]
        for label, indices in members.items()
        for position in _drawn(len(indices), shots, seed, f"shots of {label}")
    }
    return [example for index, example in enumerate(examples) if index in kept]


def _drawn(total: int, count: int, seed: int, name: str) -> set[int]:
    import torch  # here, because an error must not wait for it

    from fpt.random_streams import stream

    return set(torch.randperm(total, generator=stream(seed, name))[:count].tolist())
