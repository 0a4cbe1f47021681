"""Every YAML composes, every mistake is one line that names the key, and the resolved YAML says all."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fpt.config import compose, literal
from fpt.config.meant import KEYS
from fpt.config.same_run import differences
from fpt.errors import UserError
from fpt.prompts.kinds import kind_of
from fpt.tasks.catalogue import rules_of


@pytest.mark.dear
@pytest.mark.parametrize("task", ["mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "mpqa", "mr", "subj", "trec"])
def test_late_experiments_are_their_papers_recipe_for_each_of_its_tasks(task: str) -> None:
    few, full = (compose.load([f"experiment=lpt-{name}", f"task={task}"]) for name in ("few", "full"))
    for config in (few, full):
        assert (config.prompt.kind, config.prompt.length, config.prompt.generator) == ("late", 5, "npg")
        assert (config.optim.lr, config.optim.weight_decay, config.optim.warmup) == (0.001, 0.1, 0.06)
        assert (config.schedule.name, config.train.batch_size, config.task.answer) == ("pt", 32, "score")
        rules = rules_of(config.task)
        assert "<extra_id_0>" in rules.template.text
        assert rules.metric == ("mean" if task in ("mrpc", "qqp") else "accuracy")
    assert (few.task.protocol, few.task.shots, few.train.updates, few.train.eval_every) == ("lpt", 100, 1000, 100)
    assert (full.task.shots, full.train.epochs) == (None, 10)


@pytest.mark.parametrize("group", compose.GROUPS)
def test_every_file_composes(group: str) -> None:
    for option in compose.group_options(group):
        loaded = compose.load([f"{group}={option}"])
        if group not in ("experiment", "prompt"):
            assert getattr(loaded, group).name == option


@pytest.mark.parametrize(("size", "updates"), [("large", 30000), ("xl", 15000)])
@pytest.mark.parametrize("schedule", ["pt", "ld", "fr", "cr"])
def test_experiments_are_the_papers_recipes(size: str, updates: int, schedule: str) -> None:
    loaded = compose.load([f"experiment={size}-{schedule}", "task=mnli"])
    assert (loaded.model.name, loaded.schedule.name, loaded.train.updates) == (f"t5-{size}", schedule, updates)
    assert (loaded.prompt.length, loaded.prompt.init) == (20, "auto")
    assert (loaded.optim.lr, loaded.optim.weight_decay, loaded.optim.clip) == (0.3, 1e-5, 1.0)
    assert (loaded.train.batch_size, loaded.train.eval_every) == (32, 500)
    assert (loaded.task.source_length, loaded.task.target_length) == (492, 10)


MISTAKES = {
    "train.updats=3": ["train.updats=3", "'train.updates'"],
    "train.lr=3": ["train.lr=3", "'optim.lr'"],
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
    "schedule=dl": ["schedule=dl", "cr, cr-half, fast, fr, ld, pt"],
    "schedule.stages=3": ["schedule.stages=3", "list"],
    "task.reduce_decoder=maybe": ["task.reduce_decoder=maybe", "true or false"],
    "prompt.init=text": ["prompt.init=text", "prompt.text"],
    "prompt.text=hello": ["prompt.text", "prompt.init=text"],
    "prompt.init=file prompt.file=/nowhere/p": ["prompt.file=/nowhere/p", "no such file"],
    "train.micro_batch=33": ["train.micro_batch=33", "train.batch_size=16"],
    "train.updates=1,2": ["train.updates=1,2", "fpt train -m"],
    "boolq": ["boolq", "key=value"],
    "~train": ["~train", "deleted"],
    "prompt.length=20000000000": ["prompt.length=20000000000", "at most"],
    "task@foo=boolq": ["task@foo=boolq", "packages"],
    "model=": ["model=", "neither one of"],
    "model.name=../x": ["model.name", "slash"],
    "seed=-1": ["seed=-1", "at least 0"],
    "prompt=lat": ["prompt=lat", "late, soft", "'late'"],
    "prompt.layer=3": ["prompt.layer=3", "prompt=late"],
    "prompt.generator=appg": ["prompt.generator=appg", "prompt=late"],
    "prompt=late prompt.init=vocab": ["prompt.init=vocab", "prompt=soft"],
    "prompt=late prompt.init=normal": ["prompt.init=normal", "prompt.generator=npg start uniform"],
    "prompt.dropout=0.1": ["prompt.dropout=0.1", "prompt=late"],
    "prompt=late prompt.dropout=1.0": ["prompt.dropout=1.0", "at most 0.9"],
    "prompt=late prompt.generator=ppg": ["prompt.generator=ppg", "npg, appg, mppg, none"],
    "prompt=late prompt.generator=appg prompt.pool=mean": ["prompt.pool=mean", "prompt.generator=npg"],
    "prompt=late prompt.generator=none prompt.bottleneck=256": ["prompt.bottleneck=256", "none"],
    "prompt=late prompt.layer=-1": ["prompt.layer=-1", "at least 0"],
    "prompt=late prompt.layer=1.5": ["prompt.layer=1.5", "fraction"],
    "prompt=late prompt.layer=middle": ["prompt.layer=middle", "whole number or a number"],
    "optim.name=adam": ["optim.name=adam", "adafactor, adamw"],
    "optim.warmup=2": ["optim.warmup=2", "at most 1"],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_clear_line(words: str) -> None:
    with pytest.raises(UserError) as caught:
        compose.load(words.split())
    message = str(caught.value)
    assert "\n" not in message
    for part in MISTAKES[words]:
        assert part in message


def test_a_late_prompt_has_its_papers_recipe_and_the_users_word_wins() -> None:
    loaded = compose.load(["prompt=late"])
    assert (loaded.prompt.kind, loaded.prompt.length, loaded.prompt.bottleneck) == ("late", 5, 128)
    assert [kind_of(loaded.prompt).position(blocks) for blocks in (24, 7, 1)] == [12, 4, 1]
    assert (loaded.optim.name, loaded.optim.schedule, loaded.optim.warmup) == ("adamw", "linear", 0.06)
    assert (5e-4 <= loaded.optim.lr <= 1e-3, loaded.optim.weight_decay, loaded.train.batch_size) == (True, 0.1, 32)
    assert loaded.folder.name == "boolq-tiny-pt-late-s0"
    for words in (["optim.lr=0.5", "prompt=late"], ["prompt=late", "optim.lr=0.5"]):
        assert compose.load([*words, "prompt.length=7", "prompt.layer=12"]).optim.lr == 0.5
    again = compose.load(["prompt=late", "prompt.layer=12"])
    assert compose.read(compose.to_yaml(again)) == again
    assert kind_of(again.prompt).position(24) == 12


def test_the_kind_of_prompt_comes_with_its_recipe_or_not_at_all() -> None:
    with pytest.raises(UserError, match=r"prompt\.kind=late: write prompt=late, which brings"):
        compose.load(["prompt.kind=late"])


def test_a_folder_or_hub_id_is_a_model(tmp_path: Path) -> None:
    assert compose.load([f"model={tmp_path}"]).model.weights == str(tmp_path)
    loaded = compose.load(["model=google/mt5-small", "seed=3"])
    assert (loaded.model.weights, loaded.model.name) == ("google/mt5-small", "mt5-small")
    assert loaded.folder == Path("runs/boolq-mt5-small-cr-s3")


@pytest.mark.parametrize(
    "value",
    ["a: {b}, {c}", "it's {b}", "{b}", "'{b}'", '"{b}"', r"a\{b}", "a\\", r"\'", "'a' {b}", "a=b", "a\tb", " {b} "],
)
def test_a_template_is_taken_as_it_stands(value: str) -> None:
    """As a shell hands it over when it is quoted once; quoted twice, as Hydra has it, it may be too."""
    expected = value[1:-1] if value in ("'{b}'", '"{b}"') else value
    assert compose.load([f"task.template={value}"]).task.template == expected
    assert compose.load(["task.template=null"]).task.template is None


RESOLVED = [
    "costs ${text} now",
    "${seed}",
    "${oc.env:HOME} {x}",
    "half a ${",
    r"a \${seed}",
    r"\\${seed} {x}",
    "$ {x} }",
]


@pytest.mark.parametrize("text", RESOLVED)
def test_nothing_is_resolved_in_a_text_nor_in_what_was_read_from_a_file(tmp_path: Path, text: str) -> None:
    """A template as typed, label words and a schedule's values, in a new run and in one read back."""
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps([{"depth": text, "share": 1.0}]))
    for typed in (literal.escaped(text), *([] if "\\" in text else [text])):
        config = compose.load([f"task.template={typed}", f"schedule={file}"])
        config = replace(config, task=replace(config.task, labels={0: text, text: "yes"}))
        assert config.task.template == text
        assert config.schedule.stages == [{"depth": text, "share": 1.0}]
        again = compose.load(["seed=3"], base=compose.read(compose.to_yaml(config)))
        assert replace(again, seed=0) == config
        assert literal.flat(compose.to_yaml(config))["task.template"] == text
        assert not differences(compose.to_yaml(config), config)


def test_what_is_typed_may_be_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/there")
    assert compose.load(["run.dir=${oc.env:PLACE}/run", "seed=3"]).run.dir == "/there/run"


def test_own_stages_get_a_name_of_their_own() -> None:
    assert compose.load(["schedule.stages=[{share: 1.0}]"]).schedule.name == "custom"
    assert compose.load(["schedule.stages=[{share: 1.0}]", "schedule.name=mine"]).folder.name == "boolq-tiny-mine-s0"


def test_resolved_yaml_holds_every_key_and_shows_differences() -> None:
    first, second = (compose.to_yaml(compose.load(words)) for words in (["seed=1"], ["seed=2", "optim.lr=0.2"]))
    tree = OmegaConf.create(first)
    for key in compose.settings():
        assert OmegaConf.select(tree, key, default="absent") != "absent"
    before, after = literal.flat(first), literal.flat(second)
    assert set(before) >= {key for key in compose.settings() if key != "model.config"}
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert changed == {"seed": (1, 2), "optim.lr": (0.3, 0.2)}


@pytest.mark.parametrize(
    "text", ["- {depth: 0.5, share: 0.5}\n- {share: 0.5}\n", "stages: [{depth: 0.5, share: 0.5}, {share: 0.5}]\n"]
)
def test_a_schedule_may_be_a_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "halves.yaml"
    file.write_text(text)
    schedule = compose.load([f"schedule={file}", "schedule.reduce=both"]).schedule
    assert (schedule.name, schedule.reduce) == ("halves", "both")
    assert schedule.stages == [{"depth": 0.5, "share": 0.5}, {"share": 0.5}]


@pytest.mark.parametrize("text", ["3", "{", "stages: 3", "steps: []", ""])
def test_a_file_that_is_no_schedule_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    for name in ("x.yaml", "missing.yaml"):
        with pytest.raises(UserError, match=f"schedule=.*{name}: ") as caught:
            compose.load([f"schedule={tmp_path / name}"])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train.batch=8", "Did you mean 'train.batch_size'?"),
        ("optim.learning_rate=1", "Did you mean 'optim.lr'?"),
        ("learning-rate=1", "Did you mean 'optim.lr'?"),
        ("train.max_steps=8", "Did you mean 'train.updates'?"),
        ("output_dir=x", "Did you mean 'run.dir'?"),
        ("num_train_epochs=3", "Did you mean 'train.epochs'?"),
        ("train.upates=8", "Did you mean 'train.updates'?"),
        ("train.lr=1", "Did you mean 'optim.lr'?"),
    ],
)
def test_a_name_that_others_have_for_a_key_is_understood(typed: str, meant: str) -> None:
    with pytest.raises(UserError, match=re.escape(meant)):
        compose.load([typed])


def test_what_is_meant_is_a_key_or_a_group() -> None:
    assert set(KEYS) <= {*compose.settings(), *compose.GROUPS}
    names = [name for others in KEYS.values() for name in others]
    assert len(names) == len(set(names))


def test_a_batch_has_no_more_examples_than_there_are() -> None:
    loaded = compose.load(["train.batch_size=32", "train.micro_batch=24", "engine.processes=4"])
    sizes = [loaded.with_batches_of(number).train for number in (None, 100, 16, 2)]
    assert [(train.batch_size, train.micro_batch) for train in sizes] == [(32, 24), (32, 24), (16, 16), (4, 4)]
