"""From text to token ids: tokenised once, cut to the limits, </s> kept."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from fpt.backbones.rows import ROWS, Row
from fpt.config.schema import TaskConfig
from fpt.data.encoded import IGNORED, Encoded
from fpt.data.rows import Rows
from fpt.errors import UserError
from fpt.runs.progress import WithBar
from fpt.tasks.metrics import normalise
from fpt.tasks.task import MASK, SENTINEL, Example, TaskRules

PART = 2000  # examples that are tokenised at once
ESCAPE = "\0"  # behind a special token's first letter it makes plain text of it; no text of a user's holds one
SENTINELS = re.compile(r"<extra_id_\d+>")


def encode(
    examples: Sequence[Example],
    tokens: "Tokens",
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
        part = [tokens.marked(examples[index]) for index in indices]
        whole_sources = tokens.of_sources([example.source for example in part])
        whole_targets = tokens.of_targets([example.target for example in part])
        whole[indices] = list(zip(map(len, whole_sources), map(len, whole_targets), strict=True))
        cut = [_cut_source(*pair, tokens, source_length) for pair in zip(part, whole_sources, strict=True)]
        if tokens.blank is not None:
            _check_masks(part, cut, tokens)
        if find_answers:
            lost += sum(
                len(before) > source_length and _is_lost(example, after, tokens.tokenizer)
                for example, before, after in zip(part, whole_sources, cut, strict=True)
            )
        sources.append(Rows.of(cut))
        targets.append(Rows.of(_cut(ids, target_length, tokens.ends) for ids in whole_targets))
    # Behind a mask any token will do where a tokenizer has none to pad with, as GPT-2's and Llama 3's.
    pad = tokens.tokenizer.pad_token_id or 0
    return Encoded(Rows.joined(sources), Rows.joined(targets), whole, lost, pad=pad, blank=tokens.blank)


def templates_of(rules: TaskRules, task: TaskConfig) -> str:
    """The templates of a task, in which special tokens are meant as such."""
    return rules.template.text + (task.target or "")


def decoded(outputs: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Outputs as texts without special tokens; in their ids IGNORED stands behind the end, and is no token."""
    said = [[token for token in ids if token != IGNORED] for ids in outputs]
    texts = tokenizer.batch_decode(said, skip_special_tokens=True)
    if len(tokenizer.tokenize(SENTINEL.strip())) > 2:  # another family's, to which it is text; to mT5's it is a word
        return [text.strip() for text in texts]
    return [SENTINELS.sub("", text).strip() for text in texts]


@dataclass(frozen=True)
class Tokens:
    """How texts become token ids for a model of a family, whose row this is.

    Special tokens in a text are plain text, as records may hold `</s>`, but for those that stand in `templates`.
    """

    tokenizer: PreTrainedTokenizerBase
    row: Row = ROWS["t5"]
    templates: str = ""

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Finds special tokens that no template means."""
        added = (str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        names = {*added, *map(str, self.tokenizer.all_special_tokens)} - {""}
        unmeant = sorted((name for name in names if name not in self.templates), key=lambda name: (-len(name), name))
        return re.compile("|".join(map(re.escape, unmeant)) or r"(?!)")

    @cached_property
    def special_ids(self) -> set[int]:
        """Ids of special tokens, but for the unknown token, which any text may become."""
        return set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The ids that the model has before a source and behind it; text that goes on has no end."""
        bare, framed = self.of_parts(["a"])[0], self.tokenizer("a")["input_ids"]
        start = next((place for place in range(len(framed)) if framed[place : place + len(bare)] == bare), 0)
        return framed[:start], framed[start + len(bare) :] if not self.row.reads.reads_target else []

    @property
    def blank(self) -> int | None:
        """The mask token that stands where a masked model says its answer."""
        return None if self.row.reads.writes else self.tokenizer.mask_token_id

    @property
    def ends(self) -> int:
        """How many of a target's last tokens close it."""
        return int(self.row.reads.writes)

    def of_sources(self, texts: list[str]) -> list[list[int]]:
        """Token ids of whole sources; one without any is the end token, from which a causal model starts anew."""
        before, behind = self.frame
        return [[*before, *ids, *behind] or [self.tokenizer.eos_token_id] for ids in self.of_parts(texts)]

    def marked(self, example: Example) -> Example:
        """The example with the model's own mark where its answer belongs; a masked model has one, said or unsaid.

        A causal model's answer goes on where it is, at the source's end. What else the tokenizer would take for a
        special token is escaped.
        """
        example = self._escaped(example)
        mark = self.row.reads.mark_of(self.tokenizer)
        if not self.row.reads.writes:
            if mark is None:
                raise UserError(
                    "model: its tokenizer has no mask token, and the model answers by one; take another tokenizer"
                )
            if example.mask < 0:
                example = example._replace(source=f"{example.source} {MASK}", mask=len(example.source) + 1)
        if mark is None or example.mask < 0:
            return example
        marked = example.marked(mark)
        return marked if mark else marked._replace(source=marked.source.rstrip(" "))

    def _escaped(self, example: Example) -> Example:
        starts = [found.start() for found in self.special.finditer(example.source)]
        if not starts:
            return example

        def moved(place: int) -> int:
            return place + sum(start < place for start in starts)

        (start, end), source = example.spare, self._plain(example.source)
        return example._replace(source=source, spare=(moved(start), moved(end)), mask=moved(example.mask))

    def _plain(self, text: str) -> str:
        return self.special.sub(lambda found: f"{found[0][0]}{ESCAPE}{found[0][1:]}", text)

    def of_targets(self, texts: list[str]) -> list[list[int]]:
        """Token ids of what is to be said, with the end that the model is to say too, if it says more than a word."""
        reads, end = self.row.reads, self.tokenizer.eos_token_id
        if reads.writes and end is None:
            raise UserError("model: its tokenizer has no end-of-sequence token, which an answer ends with")
        distinct = list(dict.fromkeys(texts))  # a label task's are the same few
        words = list(map(self._said, distinct))
        ids = self.of_parts(words) if reads.stands_alone else self._behind_text(words)
        ids_of = dict(zip(distinct, ids, strict=True))
        return [[*ids_of[text], end] if reads.writes else ids_of[text] for text in texts]

    def _behind_text(self, words: list[str]) -> list[list[int]]:
        """Token ids of words that go on after a text; before one alone Llama 2's tokenizer puts a space of its own."""
        (lead,) = self.of_parts(["a"])
        alone = self.of_parts([f" {word}" if word else "" for word in words])
        behind = self.of_parts([f"a {word}" if word else "" for word in words])
        return [
            ids[len(lead) :] if ids[: len(lead)] == lead != ids else own for ids, own in zip(behind, alone, strict=True)
        ]

    def _said(self, text: str) -> str:
        """A target's text, behind T5's sentinel where the model was pre-trained so."""
        word = self._plain(text.removeprefix(SENTINEL))
        return SENTINEL + word if self.row.reads.sentinel and text.startswith(SENTINEL) else word

    def of_parts(self, texts: list[str]) -> list[list[int]]:
        """Token ids; an escaped special token is its letters, or has a space among them where that is not enough.

        Such are T5's, whose vocabulary holds them as words, and those of a text that has a mark, too.
        """
        ids = self._ids([text.replace(ESCAPE, " ") for text in texts])
        for index, text in enumerate(texts):
            if ESCAPE in text and not self.special_ids & set(ids[index]):
                (exact,) = self._ids([text.replace(ESCAPE, "")], split_special_tokens=True)
                ids[index] = ids[index] if self.special_ids & set(exact) else exact
        return ids

    def _ids(self, texts: list[str], **more: bool) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False, **more
        ).input_ids
        return ids


def _check_masks(examples: list[Example], sources: list[list[int]], tokens: Tokens) -> None:
    for example, ids in zip(examples, sources, strict=True):
        if (found := sum(token == tokens.blank for token in ids)) != 1:
            how = f"there are {found}" if found else "it was cut off; give a larger task.source_length"
            raise UserError(f"example '{example.id}': the model answers at the one mask in the source, and {how}")


def _cut_source(example: Example, ids: list[int], tokens: Tokens, limit: int) -> list[int]:
    """Cut a source to the limit: from the end of its spare part, and where that is not enough, of the whole."""
    (start, end), behind = example.spare, len(tokens.frame[1])
    if len(ids) <= limit or start == end:
        return _cut(ids, limit, behind)
    before, after = tokens.of_parts([example.source[:start], example.source[end:]])
    before, after = [*tokens.frame[0], *before], [*after, *tokens.frame[1]]
    room = limit - len(after)
    return [*ids[:room], *after] if room >= len(before) else _cut([*before, *after], limit, behind)


def _is_lost(example: Example, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the source had a gold in it and the cut one has none."""
    golds = {gold: f" {normalise(gold)} " for gold in example.golds if normalise(gold)}
    if not any(gold in example.source for gold in golds):
        return False
    left = f" {normalise(tokenizer.decode(ids, skip_special_tokens=True))} "
    return not any(gold in left for gold in golds.values())


def _cut(ids: list[int], limit: int, behind: int) -> list[int]:
    """Cut ids to the limit, but keep the last ones, `behind` of which close the text."""
    return ids if len(ids) <= limit else [*ids[: limit - behind], *ids[len(ids) - behind :]]
