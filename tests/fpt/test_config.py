"""Every YAML composes, every mistake is one line that names the key, and the resolved YAML says all."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fpt import config
from fpt.errors import UserError


@pytest.mark.parametrize("group", config.GROUPS)
def test_every_file_composes(group: str) -> None:
    for option in config.group_options(group):
        if (group, option) != ("model", "custom"):
            loaded = config.load([f"{group}={option}"])
            if group not in ("experiment", "prompt"):
                assert getattr(loaded, group).name == option


@pytest.mark.parametrize(("size", "updates"), [("large", 30000), ("xl", 15000)])
@pytest.mark.parametrize("schedule", ["pt", "ld", "fr", "cr"])
def test_experiments_are_the_papers_recipes(size: str, updates: int, schedule: str) -> None:
    loaded = config.load([f"experiment={size}-{schedule}", "task=mnli"])
    assert (loaded.model.name, loaded.schedule.name, loaded.train.updates) == (f"t5-{size}", schedule, updates)
    assert (loaded.prompt.length, loaded.prompt.init) == (20, "uniform")
    assert (loaded.optim.lr, loaded.optim.weight_decay, loaded.optim.clip) == (0.3, 1e-5, 1.0)
    assert (loaded.train.batch_size, loaded.train.eval_every) == (32, 500)
    assert (loaded.task.source_length, loaded.task.target_length) == (492, 10)


MISTAKES = {
    "train.updats=3": ["train.updats=3", "'train.updates'"],
    "updates=3": ["updates=3", "'train.updates'"],
    "train.updates=abc": ["train.updates=abc", "whole number"],
    "train.updates=1.5": ["train.updates=1.5", "whole number"],
    "train.updates=0": ["train.updates=0", "at least 1"],
    "optim.lr=nan": ["optim.lr=nan", "finite"],
    "optim.lr=-1": ["optim.lr=-1", "greater than 0"],
    "engine.dtype=float16": ["engine.dtype=float16", "overflows", "bfloat16"],
    "engine.dtype=fp16": ["engine.dtype=fp16", "overflows"],
    "engine=deepsped": ["engine=deepsped", "torch"],
    "resume=maybe": ["resume=maybe", "auto, never, must"],
    "task=bolq": ["task=bolq", "'boolq'"],
    "model=t5-lage": ["model=t5-lage", "'t5-large'"],
    "schedule=dl": ["schedule=dl", "cr, fr, ld, pt"],
    "schedule.stages=3": ["schedule.stages=3", "list"],
    "task.reduce_decoder=maybe": ["task.reduce_decoder=maybe", "true or false"],
    "prompt.init=text": ["prompt.init=text", "prompt.text"],
    "prompt.text=hello": ["prompt.text", "prompt.init=text"],
    "prompt.init=file prompt.file=/nowhere/p": ["prompt.file=/nowhere/p", "no such file"],
    "train.micro_batch=33": ["train.micro_batch=33", "train.batch_size=32"],
    "train.updates=1,2": ["train.updates=1,2", "once for each"],
    "boolq": ["boolq", "key=value"],
    "~train": ["~train", "deleted"],
    "seed=-1": ["seed=-1", "at least 0"],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_clear_line(words: str) -> None:
    with pytest.raises(UserError) as caught:
        config.load(words.split())
    message = str(caught.value)
    assert "\n" not in message
    for part in MISTAKES[words]:
        assert part in message


def test_a_folder_or_hub_id_is_a_model(tmp_path: Path) -> None:
    assert config.load([f"model={tmp_path}"]).model.weights == str(tmp_path)
    loaded = config.load(["model=google/mt5-small", "seed=3"])
    assert (loaded.model.weights, loaded.model.name) == ("google/mt5-small", "mt5-small")
    assert loaded.folder == Path("runs/boolq-mt5-small-cr-s3")


def test_own_stages_get_a_name_of_their_own() -> None:
    assert config.load(["schedule.stages=[{share: 1.0}]"]).schedule.name == "custom"
    assert config.load(["schedule.stages=[{share: 1.0}]", "schedule.name=mine"]).folder.name == "boolq-tiny-mine-s0"


def test_resolved_yaml_holds_every_key_and_shows_differences() -> None:
    first, second = (config.to_yaml(config.load(words)) for words in (["seed=1"], ["seed=2", "optim.lr=0.1"]))
    tree = OmegaConf.create(first)
    for key in config.settings():
        assert OmegaConf.select(tree, key, default="absent") != "absent"
    assert config.differences(first, second) == {"seed": (1, 2), "optim.lr": (0.3, 0.1)}
    assert config.differences(first, first) == {}
