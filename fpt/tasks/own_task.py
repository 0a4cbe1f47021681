"""The user's own task (task=files): their files, templates for source and target, and a metric."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from fpt.config import label_words
from fpt.config.schema import HUB, TaskConfig
from fpt.errors import UserError, check_among
from fpt.tasks import fields, file_formats, free_answers, labels, metrics, origins, reading
from fpt.tasks.fields import Record
from fpt.tasks.origins import Origin
from fpt.tasks.task import MASK, Example, Golds, TaskRules, Template

# The settings that only task=files has
KEYS = ("train", "valid", "test", "columns", "source", "target", "spare", "id", "multilabel")
OF_LABELS = ("accuracy", "f1", "macro_f1", "matthews")
OF_NUMBERS = ("pearson", "spearman")
OF_TEXT = ("exact_match", "f1", "squad_em", "squad_f1", *OF_NUMBERS, "rougeL", "rouge1", "rouge2")


def rules(config: TaskConfig) -> TaskRules:
    """The rules of the user's own task."""
    if config.template is not None:
        raise UserError("task.template is for tasks that have one of their own; for task=files give task.source")
    records = _origin(config)
    source, target = _template(config, "source"), _template(config, "target")
    spare = source.fields
    if config.spare is not None:
        Template(f"{{{config.spare}}}", key="task.spare").check_fields(source.fields, "task.source")
        spare = (config.spare,)
    words = None if config.labels is None else _words(config.labels)
    if words is None and config.multilabel:
        raise config.error("multilabel", "is for tasks with labels; give task.labels, or leave it out")
    scored = _text_rules(config.metric or "exact_match") if words is None else _label_rules(config, words)
    return replace(
        scored,
        records=replace(records, prepare=partial(_checked, config.id, MASK in source.text)),
        template=replace(source, spare=spare),
        answer=partial(_answer, scored, target),
        answer_fields=target.fields,
        # An empty cell or list means that the answer is not known, or that there is no label.
        unknown=() if config.multilabel else ("", []),
        id_fields=() if config.id is None else (config.id,),
        each_gold=False,
    )


def check_unused(config: TaskConfig) -> None:
    """Refuse settings that only task=files has in any other task."""
    instead = {"source": "; give task.template for another wording", "test": "; give task.test_split=test for its own"}
    for key in KEYS:
        if getattr(config, key) not in (None, False):
            raise config.error(key, f"is for task=files, not for {config.name}{instead.get(key, '')}")


def _text_rules(metric: str) -> TaskRules:
    """Rules for free-text or number answers, scored by the given metric."""
    if metric in OF_LABELS and metric not in OF_TEXT:
        raise UserError(f"task.metric={metric}: is for labels; give task.labels, or one of {', '.join(OF_TEXT)}")
    check_among(metric, OF_TEXT, f"task.metric={metric}: without task.labels, allowed are")
    if metric in OF_NUMBERS:
        return replace(free_answers.RULES["stsb"], metric=metric, score=partial(free_answers.correlations, limits=None))
    if metric.startswith("rouge"):
        return replace(free_answers.RULES["xsum"], metric=metric, baseline=reading.most_common_answer)
    free = replace(reading.RULES["record"], metric=metric, score=_squad_score)
    return free if metric.startswith("squad") else replace(free, score=_score, correct=_correct)


def _score(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Percentage of answers that equal a gold exactly, and F1 of words and punctuation marks."""
    golds = [example.golds for example in examples]
    return metrics.text_scores(answers, golds, str.strip, metrics.WORDS_AND_MARKS.findall)


def _squad_score(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Exact match and F1 of words in SQuAD's normal form, without letter case, articles and punctuation."""
    scores = reading.score(answers, examples)
    return {"squad_em": scores["exact_match"], "squad_f1": scores["f1"]}


def _correct(answer: str, example: Example) -> bool:
    return metrics.exact_match(answer, example.golds, str.strip)


def _words(word_of: Mapping[Any, Any]) -> dict[str, str]:
    """Label words, keyed by the label value that each stands for in its `compared` form."""
    words: dict[str, str] = {}
    for key, word in word_of.items():
        value = fields.compared(fields.as_text(key))
        if value in words:
            raise UserError(f"task.labels: two keys are the value {value}, as 1.0 is 1 and True is true; give one")
        words[value] = fields.as_text(word)
    label_words.check_spelling(words.values())
    return words


def _label_rules(config: TaskConfig, words: Mapping[str, str]) -> TaskRules:
    """Rules for answers that are one of the label words, or any number of them, scored by the given metric."""
    num, records = len(set(words.values())), Origin((), {}, file_formats.read)
    if num < 2:
        raise UserError(f"task.labels={{{', '.join(words)}}}: expected at least two label words; {label_words.FORMS}")
    if config.multilabel:
        metric = config.metric or labels.OF_SETS[0]
        check_among(metric, labels.OF_SETS, f"task.metric={metric}: with task.multilabel=true, allowed are")
        return labels.multilabel_rules(words, records, metric)
    metric = config.metric or "accuracy"
    allowed = [name for name in OF_LABELS if num == 2 or name not in labels.OF_TWO_LABELS]
    check_among(metric, allowed, f"task.metric={metric}: with {num} label words, allowed are")
    return labels.label_rules(Template(""), words, records, tuple(dict.fromkeys((metric, "accuracy"))))


def _checked(id_field: str | None, has_mask: bool, record: Record, where: str) -> Record:
    """The record itself; one without its id, or with a column called mask next to a {mask}, is an error."""
    if has_mask and MASK[1:-1] in record:
        raise UserError(f"{where}: the column 'mask' cannot be in task.source, where {MASK} is the answer; rename it")
    if id_field is not None:
        fields.text(record, id_field, where)
    return record


def _answer(rules: TaskRules, target: Template, record: Record, where: str) -> tuple[str, Golds]:
    if rules.multilabel:
        answer = _labels(rules.words, _texts(target, record, where), where)
        return answer, (answer,)
    if not rules.words and rules.metric not in OF_NUMBERS:
        golds = _texts(target, record, where)
        if not golds or not all(map(str.strip, golds)):
            raise UserError(f"{where}: the target is empty; expected a text")
        return golds[0], golds
    answer = target.fill(fields.texts_of(record, target.fields, where)).source
    if rules.words:
        answer = _word(rules.words, answer, where)
    elif free_answers.number(answer) is None:
        raise UserError(f"{where}: the target is {answer[:100]!r}; expected a number")
    return answer, (answer,)


def _labels(words: Mapping[str, str], texts: Golds, where: str) -> str:
    """The target that says the labels in these texts: each is a label's value, or has several with commas between."""
    parts = (part for text in texts for part in ([text] if fields.compared(text) in words else text.split(",")))
    values = set(map(str.strip, parts))
    said = {_word(words, value, where) for value in values - {"", labels.NONE}.difference(words)}
    return labels.joined([word for word in dict.fromkeys(words.values()) if word in said])


def _word(words: Mapping[str, str], text: str, where: str) -> str:
    """The label word for the value that a text spells."""
    value = fields.compared(text)
    if value not in words:
        more = label_words.shown({**words, value[:100]: "WORD"})
        raise UserError(f"{where}: the label is {text[:100]!r}, and task.labels has no word for it; give {more}")
    return words[value]


def _texts(target: Template, record: Record, where: str) -> Golds:
    """The target's text; where a field of it holds a list, a text for each item."""
    choices = [
        fields.texts(record, name, where)
        if isinstance(fields.at(record, name), list)
        else [fields.text(record, name, where)]
        for name in target.fields
    ]
    filled = (target.fill(dict(zip(target.fields, each, strict=True))).source for each in product(*choices))
    return tuple(dict.fromkeys(filled))


def _template(config: TaskConfig, key: str) -> Template:
    template = Template(getattr(config, key) or "", key=f"task.{key}")
    if not template.fields:
        example = {"source": "question: {question} context: {passage}", "target": "{answer}"}[key]
        answer = f"; {MASK} is none, but where the answer is" if MASK in template.text else ""
        raise UserError(f"task=files needs a template with fields of yours as task.{key}, as in '{example}'{answer}")
    return template


def _origin(config: TaskConfig) -> Origin:
    if config.data != "auto":
        raise config.error("data", f"is for the named tasks; for task=files give task.train=FILE or {origins.HUB_FORM}")
    if config.train is None:
        raise UserError(f"task=files needs task.train=FILE ({file_formats.ALLOWED}) or {origins.HUB_FORM}")
    names = {"train": config.train, "validation": config.valid or config.train, "test": config.test}
    splits = origins.named({split: [name] for split, name in names.items() if name is not None})
    for split, (given, _) in splits.items():
        if given[0].startswith(HUB):
            origins.on_hub(given[0], split)
        elif file_formats.ending(given[0]) not in file_formats.ENDINGS:
            why = f"the name must end in one of {file_formats.ALLOWED}"
            raise UserError(f"{origins.key_of(split)}={given[0]}: {why}")
    _check_columns(config)
    # Predicting needs no data files, so whether they exist is checked only when they are read.
    tests = {"test": splits.pop("test")} if config.test is not None else {}
    return Origin((), splits, partial(file_formats.read, columns=config.columns), tests)


def _check_columns(config: TaskConfig) -> None:
    if config.columns is None:
        return
    if not config.columns or not all(config.columns):
        raise config.error("columns", "expected names, as task.columns=[label,title,text]")
    file_formats.check_names(config.columns, "task.columns")
    files = filter(None, (config.train, config.valid, config.test))
    if not any(file_formats.ending(file) in file_formats.ROWS for file in files):
        tables = ", ".join(file_formats.ROWS)
        raise config.error("columns", f"is for tables without a header ({tables}), and there is none; leave it out")
