"""What the cache keeps is given back whole, or made again."""

from pathlib import Path

import torch

from fpt.runs.tensor_cache import find_or_make


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
