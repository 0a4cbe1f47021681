"""Tokenises examples once, and cuts them to their limits with </s> kept."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from fpt.backbones.backbone import Backbone
from fpt.backbones.family_table import FAMILY_TABLE, FamilyRow
from fpt.config.schema import TaskConfig
from fpt.data.chat import Chat, chat_of
from fpt.data.encoded import IGNORED, Encoded, RaggedRows
from fpt.errors import UserError
from fpt.runs.progress import WithBar
from fpt.tasks.metrics import normalise
from fpt.tasks.task import MASK, SENTINEL, Example, Task, TaskRules

PART = 2000  # so many examples are tokenised at once
ESCAPE = "\0"  # put after a special token's first letter, it makes plain text of it; users' texts cannot hold it
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
    """Token ids of every example, cut to the limits (in tokens), with the closing </s> kept.

    A source is cut at the end of its spare part, and only when that is used up at its own end; a target at its end.
    `find_answers` counts the sources whose cut lost the gold, for tasks whose golds are spans of their source.
    """
    sources, targets = list[RaggedRows](), list[RaggedRows]()
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
        sources.append(RaggedRows.of(cut))
        targets.append(RaggedRows.of(_cut(ids, target_length, tokens.ends) for ids in whole_targets))
    # GPT-2's and Llama 3's tokenizers have no padding token; as padding is masked, any token will do.
    pad = tokens.tokenizer.pad_token_id or 0
    return Encoded(RaggedRows.joined(sources), RaggedRows.joined(targets), whole, lost, pad=pad, blank=tokens.blank)


def tokenised(task: Task, backbone: Backbone, config: TaskConfig, with_bar: WithBar) -> tuple[Encoded, ...]:
    """The task's splits as token ids: training, validation, and the test split if any."""
    tokens = tokens_of(task, backbone, config)
    limits = {"source_length": config.source_length, "target_length": config.target_length}
    return tuple(
        encode(part, tokens, **limits, find_answers=not task.labels, with_bar=with_bar) for part in task.parts.values()
    )


def tokens_of(rules: TaskRules, backbone: Backbone, task: TaskConfig) -> "Tokens":
    """How a task's texts become token ids; special tokens in its templates are meant as such."""
    templates, chat = rules.template.text + (task.target or ""), chat_of(backbone) if task.chat else None
    return Tokens(backbone.tokenizer, backbone.family.row, templates, chat)


def decoded(outputs: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Decode outputs without special tokens; IGNORED, which follows an output's end, is dropped."""
    said = [[token for token in ids if token != IGNORED] for ids in outputs]
    texts = tokenizer.batch_decode(said, skip_special_tokens=True)
    if len(tokenizer.tokenize(SENTINEL.strip())) > 2:  # a family without sentinels; to mT5's tokenizer one is a word
        return [text.strip() for text in texts]
    return [SENTINELS.sub("", text).strip() for text in texts]


@dataclass(frozen=True)
class Tokens:
    """How texts become token ids for models of the family that `row` describes.

    Special tokens in a text count as plain text, as records may hold `</s>`, except those that `templates` hold too.
    """

    tokenizer: PreTrainedTokenizerBase
    row: FamilyRow = FAMILY_TABLE["t5"]
    templates: str = ""
    chat: Chat | None = None  # what is put around source and answer; None: nothing

    @cached_property
    def special(self) -> re.Pattern[str]:
        """A pattern that finds the special tokens which no template holds."""
        added = (str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        names = {*added, *map(str, self.tokenizer.all_special_tokens)} - {""}
        unmeant = sorted((name for name in names if name not in self.templates), key=lambda name: (-len(name), name))
        return re.compile("|".join(map(re.escape, unmeant)) or r"(?!)")

    @cached_property
    def special_ids(self) -> set[int]:
        """Ids of the special tokens, without the unknown token, which any text may become."""
        return set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special ids before and after a source; in a causal model none come after it, as the target follows."""
        if self.chat:
            return [], []
        bare, framed = self.of_parts(["a"])[0], self.tokenizer("a")["input_ids"]
        start = next((place for place in range(len(framed)) if framed[place : place + len(bare)] == bare), 0)
        return framed[:start], framed[start + len(bare) :] if not self.row.reads.reads_target else []

    @property
    def blank(self) -> int | None:
        """The mask token's id, at which a masked model answers; None: the model writes its answer."""
        return None if self.row.reads.writes else self.tokenizer.mask_token_id

    @property
    def ends(self) -> int:
        """How many tokens close a target: one, or none where the answer is a single word at a mask."""
        return int(self.row.reads.writes)

    def of_sources(self, texts: list[str]) -> list[list[int]]:
        """Token ids of whole sources; an empty one becomes the end token, after which a causal model starts anew."""
        before, behind = self.frame
        return [[*before, *ids, *behind] or [self.tokenizer.eos_token_id] for ids in self.of_parts(texts)]

    def marked(self, example: Example) -> Example:
        """The example with the model's own mark where its answer belongs; a masked model's is added if missing.

        A causal model needs no mark, as its answer follows the source, with a cue before it if the template does not
        say where. Other text that the tokenizer would take for special tokens is escaped.
        """
        example, reads = self._escaped(example), self.row.reads
        mark = reads.mark_of(self.tokenizer)
        if not reads.writes:
            if mark is None:
                raise UserError(
                    "model: its tokenizer has no mask token, and the model answers by one; take another tokenizer"
                )
            if example.mask < 0:
                example = example._replace(source=f"{example.source} {MASK}", mask=len(example.source) + 1)
        if self.chat:
            return _in_chat(example.marked("") if example.mask >= 0 else example, self.chat)
        if reads.cue and example.mask < 0:
            spare = example.spare if any(example.spare) else (0, len(example.source))
            return example._replace(source=example.source + reads.cue, spare=spare)
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

        (start, end), source = example.spare, self.plain(example.source)
        return example._replace(source=source, spare=(moved(start), moved(end)), mask=moved(example.mask))

    def plain(self, text: str) -> str:
        """The text with its special tokens escaped."""
        return self.special.sub(lambda found: f"{found[0][0]}{ESCAPE}{found[0][1:]}", text)

    def of_targets(self, texts: list[str]) -> list[list[int]]:
        """Token ids of targets, each closed by the end token, unless the model only chooses a word at a mask."""
        reads, end = self.row.reads, self.chat.end if self.chat else self.tokenizer.eos_token_id
        if reads.writes and end is None:
            raise UserError("model: its tokenizer has no end-of-sequence token, which an answer ends with")
        distinct = list(dict.fromkeys(texts))  # a label task has few distinct targets
        words = list(map(self._escaped_target, distinct))
        ids = self.of_parts(words) if reads.stands_alone else self._behind_text(words)
        ids_of = dict(zip(distinct, ids, strict=True))
        return [[*ids_of[text], end] if reads.writes else ids_of[text] for text in texts]

    def _behind_text(self, words: list[str]) -> list[list[int]]:
        """Token ids of words as they follow a text; before a word alone Llama 2's tokenizer would put a space."""
        text, gap = (self.chat.between, self.chat.gap) if self.chat else ("a", " ")
        (lead,) = self.of_parts([text])
        alone = self.of_parts([gap + word if word else "" for word in words])
        behind = self.of_parts([text + gap + word if word else "" for word in words])
        return [
            ids[len(lead) :] if ids[: len(lead)] == lead != ids else own for ids, own in zip(behind, alone, strict=True)
        ]

    def _escaped_target(self, text: str) -> str:
        """A target's text, escaped; T5's sentinel before it is kept only for models that were pre-trained with it."""
        word = self.plain(text.removeprefix(SENTINEL))
        return SENTINEL + word if self.row.reads.sentinel and text.startswith(SENTINEL) else word

    def of_parts(self, texts: list[str]) -> list[list[int]]:
        """Token ids; an escaped special token is split into ordinary pieces, or gets a space in it where that fails.

        It fails for T5's, which its vocabulary holds as words, and in texts that hold a special token on purpose.
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


def _in_chat(example: Example, chat: Chat) -> Example:
    """The example as the user's message, up to where the answer is asked for; spaces around a source are left out."""
    content, (start, end) = example.source.strip(), example.spare
    left, most = len(example.source) - len(example.source.lstrip()), len(content)
    if not any(example.spare):  # so that a cut leaves the template whole
        start, end = 0, left + most
    spare = len(chat.before) + max(start - left, 0), len(chat.before) + min(max(end - left, 0), most)
    return example._replace(source=chat.before + content + chat.between, spare=spare)


def _check_masks(examples: list[Example], sources: list[list[int]], tokens: Tokens) -> None:
    for example, ids in zip(examples, sources, strict=True):
        if (found := sum(token == tokens.blank for token in ids)) != 1:
            how = f"there are {found}" if found else "it was cut off; give a larger task.source_length"
            raise UserError(f"example '{example.id}': the model answers at the one mask in the source, and {how}")


def _cut_source(example: Example, ids: list[int], tokens: Tokens, limit: int) -> list[int]:
    """Cut a source to the limit at the end of its spare part; if that is not enough, also at the end of the whole."""
    (start, end), behind = example.spare, len(tokens.frame[1])
    if len(ids) <= limit or start == end:
        return _cut(ids, limit, behind)
    before, after = tokens.of_parts([example.source[:start], example.source[end:]])
    before, after = [*tokens.frame[0], *before], [*after, *tokens.frame[1]]
    room = limit - len(after)
    return [*ids[:room], *after] if room >= len(before) else _cut([*before, *after], limit, behind)


def _is_lost(example: Example, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the whole source held a gold, and the cut one holds none."""
    golds = {gold: f" {normalise(gold)} " for gold in example.golds if normalise(gold)}
    if not any(gold in example.source for gold in golds):
        return False
    left = f" {normalise(tokenizer.decode(ids, skip_special_tokens=True))} "
    return not any(gold in left for gold in golds.values())


def _cut(ids: list[int], limit: int, behind: int) -> list[int]:
    """Cut ids to the limit, but keep the last `behind` of them, which close the text."""
    return ids if len(ids) <= limit else [*ids[: limit - behind], *ids[len(ids) - behind :]]
