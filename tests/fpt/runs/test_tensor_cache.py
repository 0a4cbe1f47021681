"""What the cache keeps is given back whole, or made again."""

from pathlib import Path

import torch

from fpt.runs.tensor_cache import find, find_or_make


def test_tensors_are_kept_under_their_name_and_made_again_when_damaged(tmp_path: Path) -> None:
    made = []

    def compute() -> dict[str, torch.Tensor]:
        made.append(len(made))
        return {"encoder": torch.full((2, 3), float(len(made)))}

    first = find_or_make(tmp_path, "importance", "a", compute)
    assert torch.equal(find_or_make(tmp_path, "importance", "a", compute)["encoder"], first["encoder"])
    find_or_make(tmp_path, "importance", "b", compute)
    assert made == [0, 1]
    file = tmp_path / "importance" / "a.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert find_or_make(tmp_path, "importance", "a", compute)["encoder"][0, 0] == 3


def test_files_that_were_swapped_are_not_taken_for_each_other(tmp_path: Path) -> None:
    for key, value in (("a", 1.0), ("b", 2.0)):
        find_or_make(tmp_path, "tokens", key, lambda value=value: {"ids": torch.full((2,), value)})
    first, second = (tmp_path / "tokens" / f"{key}.safetensors" for key in "ab")
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    assert find(tmp_path, "tokens", "a") is None
    assert find(tmp_path, "tokens", "b") is None
