"""What the cache keeps is given back whole, or not at all."""

from pathlib import Path

import pytest
import torch

from fpt.errors import UserError
from fpt.runs.tensor_cache import find, keep


def test_tensors_are_found_under_their_own_key_and_only_whole(tmp_path: Path) -> None:
    for key, value in (("a", 1.0), ("b", 2.0)):
        assert find(tmp_path, key) is None
        keep(tmp_path, key, {"encoder": torch.full((2, 3), value)})
        assert torch.equal(find(tmp_path, key)["encoder"], torch.full((2, 3), value))
    first, second = (tmp_path / "importance" / f"{key}.safetensors" for key in "ab")
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(bytes(data))
    assert find(tmp_path, "a") is None
    second.rename(first)
    assert find(tmp_path, "a") is None
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache_dir=\S+/file: cannot be used"):
        find(tmp_path / "file", "a")
