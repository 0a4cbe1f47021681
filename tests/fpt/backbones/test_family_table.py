"""Each way to read answers for itself; the passes that it describes are held against transformers' elsewhere."""

from types import SimpleNamespace

import pytest

from fpt.backbones.family_table import FAMILY_TABLE, Reading

READINGS = {"seq2seq": "t5gemma", "spans": "t5", "causal": "llama", "mask": "bert"}  # each with a family that has it

MASKED = SimpleNamespace(mask_token="[MASK]")  # a tokenizer that has a mask


@pytest.mark.parametrize("reads", [FAMILY_TABLE[family].reads for family in READINGS.values()], ids=READINGS)
def test_a_templates_mask_is_refused_where_the_model_has_no_mark(reads: Reading) -> None:
    assert bool(reads.wrong_mark(is_last=True)) == (reads.mark_of(MASKED) is None)


@pytest.mark.parametrize(
    ("name", "positions", "answered", "mark", "chooses"),
    [
        ("seq2seq", 7, 3, None, False),
        ("spans", 7, 3, "<extra_id_0>", False),
        ("causal", 9, 3, "", False),
        ("mask", 7, 1, "[MASK]", True),
    ],
)
def test_what_it_says_of_a_source_of_7_and_a_target_of_3_tokens(
    name: str, positions: int, answered: int, mark: str | None, chooses: bool
) -> None:
    reads = FAMILY_TABLE[READINGS[name]].reads
    assert (reads.positions(7, 3), reads.answered(3)) == (positions, answered)
    assert (reads.mark_of(MASKED), reads.chooses("generate")) == (mark, chooses)
    assert reads.chooses("score")
