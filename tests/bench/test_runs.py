"""Several processes share a bench's runs: what another is at is left to it."""

from pathlib import Path

import pytest

from bench.runs import claimed, run_missing


@pytest.mark.trains
def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    folder, done = tmp_path / "run", list[Path]()
    with claimed(folder) as is_ours:
        assert is_ours
        run_missing({folder: ["task=boolq"]}, 1, done.append)
    assert done == []
    assert not folder.exists()
