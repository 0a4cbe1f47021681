"""What a model's way to read does not go with is refused before weights are read, in one line with a way out."""

import pytest

from fpt.config import compose
from fpt.errors import UserError
from stages import schedule

REFUSED = {
    "model=roberta-large task=squad_v2": "answers by one word at a mask, and squad_v2 has no label words",
    "model=roberta-large task.source_length=600": "has 512 positions; give task.source_length=512 or less",
    "model=gpt2-large task.source_length=1100": "has 1024 positions, of which 9 are for the target",
    "model=gpt2-large engine.quantize=int8": "packs linear layers, and model=gpt2-large has layers of another kind",
    "model=gpt2-large prompt=late prompt.layer=99": "reads with 36 blocks; give 0 to 36",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_go_together_is_refused(words: str) -> None:
    with pytest.raises(UserError, match=REFUSED[words]):
        schedule.of(compose.load(words.split()))


def test_a_mask_in_the_template_of_a_model_that_writes_is_refused() -> None:
    words = ["task.template={question} {passage} {mask}"]
    with pytest.raises(UserError, match="model=tiny: writes its answers, and the template has a"):
        schedule.of(compose.load(words))
    assert schedule.of(compose.load([*words, "model=roberta-large"])).full.source.blocks == 24
