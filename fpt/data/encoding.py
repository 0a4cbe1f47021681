"""From text to token ids: tokenised once, cut to the limits, </s> kept."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from fpt.data.encoded import Encoded
from fpt.data.rows import Rows
from fpt.runs.progress import WithBar
from fpt.tasks.metrics import normalise
from fpt.tasks.task import Example

PART = 2000  # examples that are tokenised at once


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    source_length: int,
    target_length: int,
    find_answers: bool = False,
    with_bar: WithBar = lambda parts, _: parts,
) -> Encoded:
    """Token ids of every example, closing </s> kept where they are cut to the limits, which are in tokens.

    A source gives up its spare part from that part's end, and only then the end of the rest; a target its end.
    `find_answers` where golds are pieces of their source, so that a cut may lose them.
    """
    sources, targets = list[Rows](), list[Rows]()
    whole, lost = np.empty((len(examples), 2), np.int32), 0
    parts = [list(range(start, min(start + PART, len(examples)))) for start in range(0, len(examples), PART)]
    for indices in with_bar(parts, "tokenising"):
        part = [examples[index] for index in indices]
        whole_sources = _tokenise([example.source for example in part], tokenizer)
        whole_targets = _tokenise_distinct([example.target for example in part], tokenizer)
        whole[indices] = list(zip(map(len, whole_sources), map(len, whole_targets), strict=True))
        cut = [_cut_source(*pair, tokenizer, source_length) for pair in zip(part, whole_sources, strict=True)]
        if find_answers:
            lost += sum(
                len(before) > source_length and _is_lost(example, after, tokenizer)
                for example, before, after in zip(part, whole_sources, cut, strict=True)
            )
        sources.append(Rows.of(cut))
        targets.append(Rows.of(_cut(ids, target_length) for ids in whole_targets))
    return Encoded(Rows.joined(sources), Rows.joined(targets), whole, lost, pad=int(tokenizer.pad_token_id or 0))


def _tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase, *, closed: bool = True) -> list[list[int]]:
    """Token ids of each text, `closed` with </s>."""
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=closed, return_attention_mask=False, verbose=False
    ).input_ids
    return ids


def _tokenise_distinct(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of each text, of which most are the same few, as a label task's targets are."""
    distinct = list(dict.fromkeys(texts))
    ids_of = dict(zip(distinct, _tokenise(distinct, tokenizer), strict=True))
    return [ids_of[text] for text in texts]


def _cut_source(example: Example, ids: list[int], tokenizer: PreTrainedTokenizerBase, limit: int) -> list[int]:
    """The ids without as much of the end of the spare part as it takes, or of the whole where that is not enough."""
    start, end = example.spare
    if len(ids) <= limit or start == end:
        return _cut(ids, limit)
    (before,) = _tokenise([example.source[:start]], tokenizer, closed=False)
    (after,) = _tokenise([example.source[end:]], tokenizer)
    room = limit - len(after)
    return [*ids[:room], *after] if room >= len(before) else _cut([*before, *after], limit)


def _is_lost(example: Example, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the source had a gold in it and the cut one has none."""
    golds = {gold: f" {normalise(gold)} " for gold in example.golds if normalise(gold)}
    if not any(gold in example.source for gold in golds):
        return False
    left = f" {normalise(tokenizer.decode(ids, skip_special_tokens=True))} "
    return not any(gold in left for gold in golds.values())


def _cut(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]
