"""Tokenises examples once, cut to their limits with </s> kept, and refuses labels that a tokenizer cannot express."""

from collections.abc import Sequence

import numpy as np

from fpt.config.schema import TaskConfig
from fpt.data.encoded import Encoded, RaggedRows
from fpt.data.tokens import Tokens, decoded
from fpt.errors import UserError
from fpt.runs.progress import WithBar
from fpt.tasks.task import ANSWER, SENTINEL, Example, Task, TaskRules

PART = 2000  # so many examples are tokenised at once
NUM_READ_BACK, MOST_LETTERS = 500, 60  # training targets that are tried, evenly spaced; letters of one that are quoted


def encode(
    examples: Sequence[Example],
    tokens: Tokens,
    *,
    source_length: int,
    target_length: int,
    with_bar: WithBar = lambda parts, _: parts,
) -> Encoded:
    """Token ids of every example, cut to the limits (in tokens), with the closing </s> kept.

    A source is cut at the end of its spare part, and only when that is used up at its own end; a target at its end.
    """
    if tokens.chat and source_length <= (least := len(tokens.of_parts([tokens.chat.before + tokens.chat.between])[0])):
        raise UserError(f"task.source_length={source_length}: the chat template alone is {least} tokens; give more")
    sources, targets = list[RaggedRows](), list[RaggedRows]()
    whole = np.empty((len(examples), 2), np.int32)
    parts = [list(range(start, min(start + PART, len(examples)))) for start in range(0, len(examples), PART)]
    for indices in with_bar(parts, "tokenising"):
        part = [tokens.marked(examples[index]) for index in indices]
        whole_sources = tokens.of_sources([example.source for example in part])
        whole_targets = tokens.of_targets([example.target for example in part])
        whole[indices] = list(zip(map(len, whole_sources), map(len, whole_targets), strict=True))
        cut = [_cut_source(*pair, tokens, source_length) for pair in zip(part, whole_sources, strict=True)]
        if tokens.blank is not None:
            _check_masks(part, cut, tokens)
        sources.append(RaggedRows.of(cut))
        targets.append(RaggedRows.of(_cut(ids, target_length, tokens.ends) for ids in whole_targets))
    # GPT-2's and Llama 3's tokenizers have no padding token; as padding is masked, any token will do.
    pad = tokens.tokenizer.pad_token_id or 0
    return Encoded(RaggedRows.joined(sources), RaggedRows.joined(targets), whole, pad=pad, blank=tokens.blank)


def tokenised(task: Task, tokens: Tokens, config: TaskConfig, with_bar: WithBar) -> tuple[Encoded, ...]:
    """The task's splits as token ids: training, validation, and the test split if any."""
    limits = {"source_length": config.source_length, "target_length": config.target_length}
    return tuple(encode(part, tokens, **limits, with_bar=with_bar) for part in task.parts.values())


def _check_masks(examples: list[Example], sources: list[list[int]], tokens: Tokens) -> None:
    for example, ids in zip(examples, sources, strict=True):
        if (found := sum(token == tokens.blank for token in ids)) != 1:
            how = f"there are {found}" if found else "it was cut off; give a larger task.source_length"
            raise UserError(f"example '{example.id}': the model answers at the one mask in the source, and {how}")


def _cut_source(example: Example, ids: list[int], tokens: Tokens, limit: int) -> list[int]:
    (start, end), behind = example.spare, len(tokens.frame[1])
    if len(ids) <= limit or start == end:
        return _cut(ids, limit, behind)
    before, after = tokens.of_parts([example.source[:start], example.source[end:]])
    before, after = [*tokens.frame[0], *before], [*after, *tokens.frame[1]]
    room = limit - len(after)
    return [*ids[:room], *after] if room >= len(before) else _cut([*before, *after], limit, behind)


def _cut(ids: list[int], limit: int, behind: int) -> list[int]:
    """Cut ids to the limit, but keep the last `behind` of them, which close the text."""
    return ids if len(ids) <= limit else [*ids[: limit - behind], *ids[len(ids) - behind :]]


def check_labels(rules: TaskRules, tokens: Tokens, *, chosen: bool) -> list[list[int]]:
    """Token ids of the label words, which must differ and, unless the model only chooses one, decode to the words."""
    words = rules.labels
    rows = tokens.of_targets([ANSWER.format(answer=word) for word in words])
    for index, (word, row) in enumerate(zip(words, rows, strict=True)):
        if (first := rows.index(row)) < index:
            pieces = " ".join(tokens.tokenizer.convert_ids_to_tokens(row))
            raise UserError(
                f"task.labels: the words {words[first]!r} and {word!r} are the same tokens to the model's tokenizer"
                f" ({pieces}); give another word, as in task.labels={{LABEL: WORD}}"
            )
        if not tokens.row.reads.writes and len(row) != 1:
            raise UserError(
                f"task.labels: a masked model says one token, and {word!r} is {len(row)} to its tokenizer; give a word"
                " that is one, as in task.labels={LABEL: WORD}"
            )
    for word, said in zip(words, decoded(rows, tokens.tokenizer), strict=True):
        if not chosen and rules.from_text(said) != word:
            raise UserError(
                f"task.labels: {word!r} reads back as {said!r} from the model's tokenizer, so that no output could be"
                " it; give another word, as in task.labels={LABEL: WORD}, or task.answer=score, which chooses one"
            )
    return rows


def lost_targets(task: Task, tokens: Tokens) -> list[str]:
    """A note for the user if free targets to train on do not read back: no output of the model could be them."""
    if task.classes:
        return []
    some = [task.train[index] for index in range(0, len(task.train), -(-len(task.train) // NUM_READ_BACK))]
    texts = decoded(tokens.of_targets([example.target for example in some]), tokens.tokenizer)
    right = task.correct or (lambda said, example: said.split() == example.target.removeprefix(SENTINEL).split())
    lost = [
        f"{example.target.removeprefix(SENTINEL)[:MOST_LETTERS]!r} becomes {said[:MOST_LETTERS]!r}"
        for example, said in zip(some, texts, strict=True)
        if not right(task.from_text(said), example)
    ]
    share = f"{len(lost):,} of {len(some):,} training targets"
    return [f"{share} do not read back from the model's tokenizer, which cannot say them: {one}" for one in lost[:1]]
