"""What a kind of prompt says of itself is what it then is: on the way to a file and back, and as a module."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from fpt.config.schema import PromptConfig
from fpt.prompts.files import initial, open_prompt
from fpt.prompts.kinds import KINDS, kind_of, width_of
from fpt.runs.run import LEARNED
from fpt.training.checkpoint import dump_prompt
from tests.conftest import open_folder

PROMPTS = {
    "soft": PromptConfig(length=7),
    "soft, behind": PromptConfig(length=7, place="suffix"),
    "late, npg": PromptConfig(kind="late", length=7, layer=3, bottleneck=5, pool="mean"),
    "late, appg": PromptConfig(kind="late", length=7, layer=3, bottleneck=5, generator="appg"),
    "late, mppg": PromptConfig(kind="late", length=7, layer=3, bottleneck=5, generator="mppg"),
    "late, none": PromptConfig(kind="late", length=7, layer=3, generator="none"),
}


def test_every_kind_that_may_be_typed_is_there() -> None:
    choices = PromptConfig.__dataclass_fields__["kind"].metadata["choices"]
    assert list(KINDS) == list(choices)
    assert {config.kind for config in PROMPTS.values()} == set(choices)


@pytest.mark.parametrize("name", PROMPTS)
def test_its_file_says_what_it_is(name: str, checkpoint: Path, tmp_path: Path) -> None:
    config = PROMPTS[name]
    kind, file = kind_of(config), tmp_path / "prompt.safetensors"
    tensors = initial(config, open_folder(checkpoint), labels=(), seed=0)
    file.write_bytes(dump_prompt(tensors, **kind.metadata(3)))
    stored = open_prompt(file)
    assert [getattr(stored.config, key) for key in LEARNED] == [getattr(config, key) for key in LEARNED]
    assert stored.shapes == kind.shapes(32)
    assert width_of(stored.shapes) == 32
    assert kind.mismatch(stored.shapes, stored.config, 32) is None
    assert kind.mismatch(stored.shapes, stored.config, 64) is not None


@pytest.mark.parametrize("name", PROMPTS)
def test_its_module_learns_what_it_says(name: str, checkpoint: Path) -> None:
    config = PROMPTS[name]
    kind = kind_of(config)
    module = kind.build(initial(config, open_folder(checkpoint), labels=(), seed=0), kind.position(6))
    assert (module.length, module.position) == (7, kind.position(6))
    assert {key: tuple(tensor.shape) for key, tensor in module.tensors.items()} == kind.shapes(32)
    assert sum(parameter.numel() for parameter in module.parameters()) == kind.num_learned(32)
    assert sum(math.prod(shape) for shape in kind.shapes(32).values()) == kind.num_learned(32)
    assert (not kind.not_exported) == (not module.is_behind and kind.position(6) == 0)
    assert kind.kept_blocks(6) == (6 if module.is_behind else kind.position(6) or None)


def test_kinds_answer_without_torch() -> None:
    code = (
        "import sys; from fpt.config.schema import PromptConfig; from fpt.prompts.kinds import KINDS, kind_of\n"
        "for name in KINDS:\n"
        "    kind = kind_of(PromptConfig(kind=name))\n"
        "    kind.position(6), kind.shapes(32), kind.num_learned(32), kind.flops(9, 32), kind.metadata(3)\n"
        "    kind.not_exported, kind.described(32, 3, 'it')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
