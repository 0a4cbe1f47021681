"""The three ways to read: what goes through which stack, where an answer belongs and how it comes out.

A family's row has one of them, which is asked, never tested for; `fpt/prompts/readers.py` has the passes of each.
Imports nothing heavy.
"""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Reading:
    """How a family's models read an example and answer it.

    Attributes:
        name: as the documentation has it.
        auto_class: the class of transformers that opens such models.
        peft_task: what PEFT calls their task.
        pool: the token whose state says most about a source, "first" or "last".
        writes: whether an answer is written token by token up to an end; else one word is chosen at a mask.
        reads_target: whether the target goes through the stack that the prompt enters, behind the source.
        stands_alone: whether a target begins its stack, not behind a text.
        sentinel: what targets begin with, as in pre-training; "": nothing.
        mark: what stands in a source where a written answer belongs; "": it goes on there; None: there is no such mark.
    """

    name: str
    auto_class: str
    peft_task: str = ""
    pool: str = "first"
    writes: bool = True
    reads_target: bool = False
    stands_alone: bool = False
    sentinel: str = ""
    mark: str | None = None

    def positions(self, source: int, target: int) -> int:
        """How many positions of an example go through the stack that a prompt enters, without the prompt's."""
        return source + target - 1 if self.reads_target else source  # nothing is read from the last token

    def answered(self, target: int) -> int:
        """How many positions logits are computed for."""
        return target if self.writes else 1

    def chooses(self, answer: str) -> bool:
        """Whether label words are chosen between, given `task.answer`."""
        return answer != "generate" or not self.writes

    def mark_of(self, tokenizer: Any) -> str | None:
        """The mark of a model with this tokenizer."""
        return self.mark if self.writes else tokenizer.mask_token

    def wrong_mark(self, *, is_last: bool) -> str:
        """What is wrong with a template that has `{mask}`, at its end or not; "": nothing."""
        if self.writes and self.mark is None:
            return "has no mark for an answer in its source: give a task.template without {mask}"
        if self.mark == "" and not is_last:
            return "goes on behind its source: give a task.template that ends in {mask}, or has none"
        return ""


SEQ2SEQ = Reading("seq2seq", "AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM", stands_alone=True)
SPANS = replace(SEQ2SEQ, sentinel="<extra_id_0>", mark="<extra_id_0>")  # T5's way, in which an answer fills a gap
CAUSAL = Reading("causal", "AutoModelForCausalLM", "CAUSAL_LM", pool="last", reads_target=True, mark="")
MASK = Reading("mask", "AutoModelForMaskedLM", writes=False)
