"""The ways in which families read and answer: sequence to sequence, causal, or by filling in a mask.

A family has one of them. Other code uses its attributes and never asks which one it is; the forward passes of each are
in `fpt/prompts/readers.py`. Imports nothing heavy.
"""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Learning:
    """How a soft prompt learns on a family's models where nothing is said."""

    init: str  # what it starts from, a value of `prompt.init`
    optimizer: str  # a value of `optim.name`
    schedule: str  # a value of `optim.schedule`
    lr: float | None  # the learning rate; None: relative to the embeddings' size, which differs tenfold between models
    bucket: int  # the value of `train.bucket`


PUBLISHED = Learning("uniform", "adafactor", "constant", 0.3, 32)  # Huang et al. 2022, for T5
MEASURED = Learning("labels", "adamw", "linear", None, 4)


@dataclass(frozen=True)
class Reading:
    """How a family's models read an example and answer it."""

    name: str  # its name in the documentation
    auto_class: str  # the class of transformers that opens such models
    peft_task: str = ""  # what PEFT calls their task
    pool: str = "first"  # the token whose hidden state summarises a source best, "first" or "last"
    writes: bool = True  # whether an answer is generated up to an end token; else one word is chosen at a mask
    reads_target: bool = False  # whether the target follows the source through the stack that the prompt enters
    stands_alone: bool = False  # whether a target is the beginning of its stack's input, rather than following a text
    sentinel: str = ""  # the token that targets begin with, as in pre-training; "": none
    schedule: str = "cr"  # what `schedule=auto` stands for
    blocks: str = "evenly"  # the blocks that partial PLMs keep unless `schedule.blocks` says otherwise
    # What marks a generated answer's place in a source; "": it follows the source; None: nothing.
    mark: str | None = None
    cue: str = ""  # what a source ends with, before the answer, if its template does not say where the answer belongs
    learning: Learning = MEASURED  # how a soft prompt learns where nothing is said

    def positions(self, source: int, target: int) -> int:
        """How many positions of an example go through the stack that a prompt enters, not counting the prompt."""
        return source + target - 1 if self.reads_target else source  # nothing is read from the last token

    def answered(self, target: int) -> int:
        """How many positions logits are computed for."""
        return target if self.writes else 1

    def chooses(self, answer: str) -> bool:
        """Whether the answer is chosen among label words, given `task.answer`."""
        return answer != "generate" or not self.writes

    def mark_of(self, tokenizer: Any) -> str | None:
        """The mark of an answer's place, for a model with this tokenizer."""
        return self.mark if self.writes else tokenizer.mask_token

    def wrong_mark(self, *, is_last: bool) -> str:
        """Why a template cannot have `{mask}`, whether at its end (`is_last`) or not; "": it can."""
        if self.writes and self.mark is None:
            return "has no mark for an answer in its source: give a task.template without {mask}"
        if self.mark == "" and not is_last:
            return "goes on behind its source: give a task.template that ends in {mask}, or has none"
        return ""


SEQ2SEQ = Reading("seq2seq", "AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM", stands_alone=True)
SPANS = replace(  # T5's way, in which an answer fills a gap
    SEQ2SEQ, sentinel="<extra_id_0>", mark="<extra_id_0>", learning=PUBLISHED
)
CAUSAL = Reading(
    "causal",
    "AutoModelForCausalLM",
    "CAUSAL_LM",
    pool="last",
    reads_target=True,
    schedule="pt",
    blocks="outer",
    mark="",
    cue="\nanswer:",
)
MASK = Reading("mask", "AutoModelForMaskedLM", writes=False)
READINGS = {"seq2seq": SEQ2SEQ, "spans": SPANS, "causal": CAUSAL, "mask": MASK}  # by the name in families.yaml
