"""How texts become token ids for one model, and its outputs texts: marks, special tokens, chat templates."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from fpt.backbones.backbone import Backbone
from fpt.backbones.family_table import FAMILY_TABLE, FamilyRow
from fpt.config.schema import TaskConfig
from fpt.data.encoded import IGNORED
from fpt.errors import UserError, reason
from fpt.tasks.task import MASK, SENTINEL, Example, TaskRules

ESCAPE = "\0"  # put after a special token's first letter, it makes plain text of it; users' texts cannot hold it
SENTINELS = re.compile(r"<extra_id_\d+>")
CHAT_SOURCE, CHAT_ANSWER = "<<source>>", "<<answer>>"  # stand in for both in the template


@dataclass(frozen=True)
class Chat:
    """A user's message and the assistant's, as one text; whatever precedes them, such as a system message, included."""

    before: str  # the text before a source
    between: str  # the text behind a source, up to where the assistant's answer is asked for
    gap: str  # what the template puts before an answer, as a space
    end: int  # the token that closes an answer


def tokens_of(rules: TaskRules, backbone: Backbone, task: TaskConfig) -> "Tokens":
    """How a task's texts become token ids; special tokens in its templates are meant as such."""
    tokenizer, templates = backbone.tokenizer, rules.template.text + (task.target or "")
    if task.add_bos_token and tokenizer.bos_token_id is None:
        lead = "begin task.source or task.template with a special token that it has, or leave it out"
        raise UserError(f"task.add_bos_token=true: {backbone.folder}: its tokenizer has no BOS token; {lead}")
    start = [tokenizer.bos_token_id][: task.add_bos_token]
    return Tokens(tokenizer, backbone.family.row, templates, chat_of(backbone) if task.chat else None, tuple(start))


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
    start: tuple[int, ...] = ()  # what a source begins with also where the tokenizer puts nothing before it

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
        before = framed[:start] or [*self.start]
        return before, framed[start + len(bare) :] if not self.row.reads.reads_target else []

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
        if not reads.writes and mark is None:
            raise UserError("model: its tokenizer has no mask token, by which the model answers; take another one")
        if not reads.writes and example.mask < 0:
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

        (start, end), source = example.spare, self._plain(example.source)
        return example._replace(source=source, spare=(moved(start), moved(end)), mask=moved(example.mask))

    def _plain(self, text: str) -> str:
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
        word = self._plain(text.removeprefix(SENTINEL))
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


def chat_of(backbone: Backbone) -> Chat:
    """The model's own chat template; an error if it has none, or one that does not end in an answer."""
    tokenizer, where = backbone.tokenizer, f"task.chat=true: {backbone.folder}"
    if not tokenizer.chat_template:
        raise UserError(f"{where}: its tokenizer has no chat template; leave task.chat out, or take an instruct model")
    asking = [{"role": "user", "content": CHAT_SOURCE}]
    told = [*asking, {"role": "assistant", "content": CHAT_ANSWER}]
    try:
        asked = str(tokenizer.apply_chat_template(asking, tokenize=False, add_generation_prompt=True))
        whole = str(tokenizer.apply_chat_template(told, tokenize=False))
    except Exception as error:  # a template is a program, with errors of its own
        raise UserError(f"{where}: its chat template fails ({reason(error)}); leave task.chat out") from None
    before, _, between = asked.partition(CHAT_SOURCE)
    gap, _, rest = whole.removeprefix(asked).partition(CHAT_ANSWER)
    ends = tokenizer(rest, add_special_tokens=False)["input_ids"][:1]
    if not between or not whole.startswith(asked) or not ends:
        raise UserError(f"{where}: its chat template does not go on as it asks for an answer; leave task.chat out")
    if ends[0] not in backbone.ends:
        name = tokenizer.convert_ids_to_tokens(ends[0])
        raise UserError(
            f"{where}: its chat template ends an answer with {name}, which is no eos_token_id of config.json or"
            f" generation_config.json; add {ends[0]} there"
        )
    return Chat(before, between, gap, ends[0])
