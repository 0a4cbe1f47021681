"""The same texts are tokenised once; others, another tokenizer or other limits are not taken for them."""

from dataclasses import replace
from pathlib import Path

import pytest

from fpt.config import compose
from fpt.config.run_config import RunConfig
from fpt.data.encoding import Tokens, encode
from fpt.data.token_cache import tokenised
from fpt.errors import UserError
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task
from tests.conftest import open_folder, save_checkpoint


def opened(boolq: Path, *words: str) -> tuple[RunConfig, Task]:
    config = compose.load([f"task.data={boolq}", "task.source_length=20", *words])
    return config, open_task(config)


def test_kept_tokens_are_those_that_were_made(checkpoint: Path, boolq: Path, tmp_path: Path) -> None:
    backbone, (config, task) = open_folder(checkpoint), opened(boolq)
    seen: list[int] = []

    def with_bar(parts, what):
        seen.extend(map(len, parts))
        return parts

    first, again = (tokenised(task, backbone, config.task, tmp_path, with_bar) for _ in range(2))
    assert seen == [48, 24]
    for data, kept, examples in zip(first, again, (task.train, task.valid), strict=True):
        fresh = encode(examples, Tokens(backbone.tokenizer), source_length=20, target_length=10)
        assert list(data.sources) == list(kept.sources) == list(fresh.sources)
        assert list(data.targets) == list(kept.targets) == list(fresh.targets)
        assert (kept.num_cut, kept.lost_answers, kept.pad) == (fresh.num_cut, 0, 0)
        assert kept.num_cut[0] > 0


def test_whatever_the_tokens_depend_on_is_told_apart(checkpoint: Path, boolq: Path, tmp_path: Path) -> None:
    backbone, (config, task) = open_folder(checkpoint), opened(boolq)
    other = open_folder(save_checkpoint(tmp_path / "other", "T5 1.1"))
    about = other.folder / "tokenizer_config.json"
    about.write_text(about.read_text().replace("{", '{"note": 1, ', 1))
    first, *rest = task.train
    moved = replace(task, train=[first._replace(spare=(1, 2)), *rest])
    longer = replace(task, train=[first._replace(source=first.source + " "), *rest])
    limits = [replace(config.task, source_length=21), replace(config.task, target_length=9)]

    def files() -> int:
        return len(list((tmp_path / "tokens").iterdir()))

    tokenised(task, backbone, config.task, tmp_path, lambda parts, _: parts)
    assert files() == 2
    for expected, (given, model, values) in enumerate(
        [(moved, backbone, config.task), (longer, backbone, config.task)], start=3
    ):
        tokenised(given, model, values, tmp_path, lambda parts, _: parts)
        assert files() == expected
    for expected, (model, values) in enumerate(
        [(other, config.task), (backbone, limits[0]), (backbone, limits[1])], start=3
    ):
        tokenised(task, model, values, tmp_path, lambda parts, _: parts)
        assert files() == 2 * expected


def test_a_damaged_file_is_made_again(checkpoint: Path, boolq: Path, tmp_path: Path) -> None:
    backbone, (config, task) = open_folder(checkpoint), opened(boolq)
    first, _ = tokenised(task, backbone, config.task, tmp_path, lambda parts, _: parts)
    for file in (tmp_path / "tokens").iterdir():
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(bytes(data))
    again, _ = tokenised(task, backbone, config.task, tmp_path, lambda parts, _: parts)
    assert list(again.sources) == list(first.sources)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache_dir=\S+/file: cannot be used"):
        tokenised(task, backbone, config.task, tmp_path / "file", lambda parts, _: parts)
