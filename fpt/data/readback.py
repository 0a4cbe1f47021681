"""Checks that a model's tokenizer can express the targets: each is tokenised, decoded and read as an answer is."""

from fpt.data.encoding import Tokens, decoded
from fpt.errors import UserError
from fpt.tasks.task import ANSWER, SENTINEL, Example, Task, TaskRules

NUM_CHECKED = 500  # training examples, evenly spaced
MOST_LETTERS = 60  # of a target that a note quotes


def check_labels(rules: TaskRules, tokens: Tokens, *, chosen: bool) -> list[list[int]]:
    """Token ids of the label words, which must differ and, unless the model only chooses one, decode to the words."""
    words = rules.labels
    rows = tokens.of_targets([ANSWER.format(answer=word) for word in words])
    for index, (word, row) in enumerate(zip(words, rows, strict=True)):
        if (first := rows.index(row)) < index:
            pieces = " ".join(tokens.tokenizer.convert_ids_to_tokens(row))
            raise UserError(
                f"task.labels: the words {words[first]!r} and {word!r} are the same tokens to the model's tokenizer"
                f" ({pieces}); give another word, as in task.labels.LABEL=WORD"
            )
        if not tokens.row.reads.writes and len(row) != 1:
            raise UserError(
                f"task.labels: a masked model says one token, and {word!r} is {len(row)} to its tokenizer; give a word"
                " that is one, as in task.labels.LABEL=WORD"
            )
    for word, said in zip(words, decoded(rows, tokens.tokenizer), strict=True):
        if not chosen and rules.from_text(said) != word:
            raise UserError(
                f"task.labels: {word!r} reads back as {said!r} from the model's tokenizer, so that no output could be"
                " it; give another word, as in task.labels.LABEL=WORD, or task.answer=score, which chooses one"
            )
    return rows


def tokenizer_notes(task: Task, tokens: Tokens) -> tuple[str, ...]:
    """Notes for the user on training examples that the tokenizer would alter."""
    some = [task.train[index] for index in range(0, len(task.train), -(-len(task.train) // NUM_CHECKED))]
    lost = [] if task.classes else _not_read_back(some, task, tokens)
    return (*_read_as_text(some, tokens), *_special_by_template(some, task.template.text, tokens), *lost)


def _read_as_text(some: list[Example], tokens: Tokens) -> list[str]:
    """A note on how many examples hold special tokens, which are read as plain text."""
    texts = [f"{example.source} {example.target.removeprefix(SENTINEL)}" for example in some]
    found = [names[0] for names in map(tokens.special.findall, texts) if names]
    if not found:
        return []
    (ids,) = tokens.of_parts([tokens.plain(found[0])])
    said = tokens.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return [
        f"{len(found):,} of {len(some):,} training examples hold special tokens of the model's tokenizer, as"
        f" {found[0]!r}; they are read as text, as {said!r}"
    ]


def _special_by_template(some: list[Example], template: str, tokens: Tokens) -> list[str]:
    """Notes on sources that hold the same special tokens as the template, where they stay special."""
    names = [name for name in tokens.tokenizer.all_special_tokens if name in template]
    counts = {name: sum(example.source.count(name) > template.count(name) for example in some) for name in names}
    return [
        f"{count:,} of {len(some):,} sources hold {name!r}, as the template does: it is special in all"
        for name, count in counts.items()
        if count
    ]


def _not_read_back(some: list[Example], task: Task, tokens: Tokens) -> list[str]:
    """A note on how many free-text targets do not decode to themselves."""
    texts = decoded(tokens.of_targets([example.target for example in some]), tokens.tokenizer)
    wanted = [example.target.removeprefix(SENTINEL) for example in some]
    lost = [
        (target, said)
        for example, target, said in zip(some, wanted, texts, strict=True)
        if not (task.correct(task.from_text(said), example) if task.correct else said.split() == target.split())
    ]
    return [
        f"{len(lost):,} of {len(some):,} training targets do not read back from the model's tokenizer, which cannot say"
        f" them: {target[:MOST_LETTERS]!r} becomes {said[:MOST_LETTERS]!r}"
        for target, said in lost[:1]
    ]
