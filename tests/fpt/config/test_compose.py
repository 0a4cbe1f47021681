"""Every YAML composes, every mistake is one line that names the key, and the resolved YAML says all."""

import json
import re
import shutil
from dataclasses import asdict, replace
from operator import attrgetter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fpt.config import compose, keys, literal
from fpt.config.run_config import RunConfig
from fpt.config.stored import differences
from fpt.errors import UserError
from fpt.prompts.kinds import kind_of
from fpt.tasks.catalogue import rules_of
from stages.resolve import for_plan


def reread(config: RunConfig) -> RunConfig:
    """A configuration as it is read back from what is written of it."""
    return compose.from_values(literal.parse(literal.dump(asdict(config))))


@pytest.mark.dear
@pytest.mark.parametrize("task", ["mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "mpqa", "mr", "subj", "trec"])
def test_late_experiments_are_their_papers_recipe_for_each_of_its_tasks(task: str) -> None:
    few, full = (compose.load([f"experiment=lpt-{name}", f"task={task}"]) for name in ("few", "full"))
    for config in (few, full):
        assert (config.prompt.kind, config.prompt.length, config.prompt.generator) == ("late", 5, "npg")
        assert (config.optim.lr, config.optim.weight_decay, config.optim.warmup) == (0.001, 0.1, 0.06)
        assert (config.schedule.name, config.train.batch_size, config.task.answer) == ("pt", 32, "score")
        rules = rules_of(config.task)
        assert rules.template.masks
        assert rules.metric == "accuracy"
    assert (few.task.shots, few.train.updates, few.train.eval_every) == (50, 1000, 100)
    assert (full.task.shots, full.train.epochs) == (None, 10)


@pytest.mark.dear
@pytest.mark.parametrize("group", keys.GROUPS)
def test_every_file_composes(group: str) -> None:
    for option in keys.group_options(group):
        loaded = compose.load([f"{group}={option}"])
        if group not in ("experiment", "prompt"):
            assert getattr(loaded, group).name == option


@pytest.mark.parametrize(("size", "updates"), [("large", 30000), ("xl", 15000)])
@pytest.mark.parametrize("schedule", ["pt", "ld", "fr", "cr"])
def test_experiments_are_the_papers_recipes(size: str, updates: int, schedule: str) -> None:
    loaded = for_plan(compose.load([f"experiment={size}-{schedule}", "task=mnli"]))
    assert (loaded.model.name, loaded.schedule.name, loaded.train.updates) == (f"t5-{size}", schedule, updates)
    assert (loaded.prompt.length, loaded.prompt.init) == (20, "uniform")
    assert (loaded.optim.name, loaded.optim.lr) == ("adafactor", 0.3)
    assert (loaded.optim.weight_decay, loaded.optim.clip) == (1e-5, 1.0)
    assert (loaded.train.batch_size, loaded.train.eval_every) == (32, 500)
    assert (loaded.task.source_length, loaded.task.target_length) == (492, 10)


MISTAKES = {
    "train.updats=3": ["train.updats=3", "'train.updates'"],
    "train.lr=3": ["train.lr=3", "'optim.lr'"],
    "updates=3": ["updates=3", "'train.updates'"],
    "train.updates=abc": ["train.updates=abc", "whole number"],
    "train.updates=1.5": ["train.updates=1.5", "whole number"],
    "train.updates=0": ["train.updates=0", "at least 1"],
    "optim.lr=.nan": ["optim.lr=nan", "finite"],
    f"optim.lr={10**400}": ["optim.lr=inf", "finite"],
    "optim.lr=true": ["optim.lr=True", "expected a number or null"],
    "train.updates=yes": ["train.updates=True", "whole number"],
    "optim.lr=-1": ["optim.lr=-1", "greater than 0"],
    "engine.dtype=float16": ["engine.dtype=float16", "bfloat16"],
    "engine=deepsped": ["engine=deepsped", "torch"],
    "resume=maybe": ["resume=maybe", "auto, never, must"],
    "task=bolq": ["task=bolq", "'boolq'"],
    "model=t5-lage": ["model=t5-lage", "'t5-large'"],
    "schedule=dl": ["schedule=dl", "auto, cr, cr-half, fast, fr, ld, pt"],
    "schedule.stages=3": ["schedule.stages=3", "list"],
    "task.reduce_decoder=maybe": ["task.reduce_decoder=maybe", "true or false"],
    "prompt.init=text": ["prompt.init=text", "prompt.text"],
    "prompt.text=hello": ["prompt.text", "prompt.init=text"],
    "prompt.init=file prompt.file=/nowhere/p": ["prompt.file=/nowhere/p", "no such file"],
    "train.micro_batch=33": ["train.micro_batch=33", "train.batch_size=16"],
    "train.updates=1,2": ["train.updates=1,2", "fpt train -m"],
    "boolq": ["boolq", "key=value"],
    "~train=1": ["~train=1", "unknown key '~train'"],
    "prompt.length=20000000000": ["prompt.length=20000000000", "at most"],
    "task@foo=boolq": ["task@foo=boolq", "unknown key"],
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
    "task.labels=no": ["task.labels=no", "'task.labels={0: no, 1: yes}'"],
    "task.labels={0,1}": ["task.labels={0,1}", "'task.labels={0: no, 1: yes}'"],
    'task.labels={"0":a,"0":b}': ["task.labels=", "'0' is given twice"],
    "task.labels.no=a": ["task.labels.no=a", "Did you mean 'task.labels'?"],
    "task.labels={x:a}": ["task.labels={x: …}", "boolq has no, yes"],
    "train.updates=???": ["train.updates=???", "not given"],
    "schedule.stages=[{depth:???}]": ["schedule.stages=", "not given"],
    "engine.device=cpu:5": ["engine.device=cpu:5", "auto, cpu, cuda and cuda:N"],
    "engine.device=tpu": ["engine.device=tpu", "auto, cpu, cuda and cuda:N"],
    f"train.updates={10**31}": [f"train.updates={10**31}", "at most"],
    "train.updates=1e31": ["train.updates=1e+31", "whole number"],
    "train.epochs=1e30": ["train.epochs=1e+30", "at most 100000"],
    f"seed={10**30}": [f"seed={10**30}", "at most"],
    f"seed={'9' * 5000}": ["seed=999", "cannot be read as YAML (ValueError"],
    f"schedule.stages={'[' * 900}{']' * 900}": ["schedule.stages=[[[", "cannot be read as YAML (RecursionError"],
    "schedule.stages=[": ["schedule.stages=[", "cannot be read as YAML (ParserError"],
    "train.updates=": ["train.updates=", "whole number"],
    "task.shots=": ["task.shots=", "whole number or null"],
    "model=\ud800/x": ["model=", "is no path (UnicodeEncodeError"],
    "model=~nouser/x": ["model=~nouser/x", "is no path", "home directory"],
    f"model={'x' * 300}/y": ["model=xxx", "at most 255 bytes"],
    f"model={'x' * 300}": ["model=xxx", "at most 255 bytes"],
    f"run.dir={'x' * 300}": ["run.dir=xxx", "at most 255 bytes"],
    f"task.name={'x' * 300}": ["run.dir=runs/xxx", "at most 255 bytes"],
    "run.dir=~nouser/x": ["run.dir=~nouser/x", "is no path"],
    "task.data=~nouser/x": ["task.data=~nouser/x", "is no path"],
    "schedule=~nouser/x.yaml": ["schedule=~nouser/x.yaml", "is no path"],
    f"prompt.init=file prompt.file={'é' * 200}": ["prompt.file=é", "at most 255 bytes"],
    "optim.warmup=2": ["optim.warmup=2", "at most 1"],
    "prompt=late prompt.cache=disk": ["prompt.cache=disk", "auto, off, memory"],
    "resume=repair": ["resume=repair", "auto, never, must"],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_clear_line(words: str) -> None:
    with pytest.raises(UserError) as caught:
        rules_of(compose.load(words.split()).task)
    message = str(caught.value)
    assert "\n" not in message
    for part in MISTAKES[words]:
        assert part in message


def test_a_link_in_a_circle_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match=r"^model=.*/loop: is no path"):
        compose.load([f"model={tmp_path / 'loop'}"])


@pytest.mark.parametrize(
    "word",
    [
        *("prompt=late", "prompt.length=3", "optim.lr=1", "schedule=pt", "train.updates=9", "recycle.optimizer=false"),
        "task.class_weights=balanced",
    ],
)
def test_a_learned_prompt_is_used_as_it_was_learned(word: str) -> None:
    with pytest.raises(
        UserError, match=f"^{word}: says how a prompt is learned, and the run's prompt is; leave it out$"
    ):
        compose.load([word], base=compose.load([]))


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
    assert reread(again) == again
    assert kind_of(again.prompt).position(24) == 12


def test_the_kind_of_prompt_comes_with_its_recipe_or_not_at_all() -> None:
    with pytest.raises(UserError, match=r"prompt\.kind=late: write prompt=late, which brings"):
        compose.load(["prompt.kind=late"])


def test_a_folder_or_hub_id_is_a_model(tmp_path: Path) -> None:
    assert compose.load(["model=./模型 (1)"]).model.name == "模型 (1)"
    assert compose.load([f"model={tmp_path}"]).model.weights == str(tmp_path)
    loaded = compose.load(["model=google/mt5-small", "schedule=cr", "seed=3"])
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
    config = compose.load([f"task.template={text}", f"schedule={file}"])
    config = replace(config, task=replace(config.task, labels={"0": text, text: "yes"}))
    assert config.task.template == text
    assert config.schedule.stages == [{"depth": text, "share": 1.0}]
    again = compose.load(["seed=3"], base=reread(config))
    assert replace(again, seed=0) == config
    assert not differences(literal.parse(literal.dump(asdict(config))), config)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("task.source", "正面 (a) # & ~ ! : [x"),
        ("task.target", r"${seed} and \\${oc.env:HOME} {a}"),
        ("prompt.text", "'a' or 'b', no"),
        ("task.name", "no"),
        ("task.valid", "1e3"),
        ("run.dir", "~/x y/${seed}"),
        ("model.weights", "./模型 (1)"),
        ("model.revision", "1.50"),
    ],
)
def test_a_text_is_what_is_typed(key: str, text: str) -> None:
    config = compose.load([f"{key}={text}", *(["prompt.init=text"] if key == "prompt.text" else [])])
    assert attrgetter(key)(config) == text
    assert compose.load([], base=config) == config


@pytest.mark.parametrize(
    ("typed", "labels"),
    [
        ("{正面: yes, 负面: no}", {"正面": "yes", "负面": "no"}),
        ('{"0":"no","1":"yes"}', {"0": "no", "1": "yes"}),
        ("{0: false, 1: 1e3, 2: 1.50, 3: null}", {"0": "false", "1": "1e3", "2": "1.50", "3": "null"}),
        ("{True: on, null: 0x1F}", {"True": "on", "null": "0x1F"}),
        ("[no, yes, 'a, b']", {"no": "no", "yes": "yes", "a, b": "a, b"}),
        ("{'x: y': \"a, b\", R&D: '(c) # ~!', z: d:e}", {"x: y": "a, b", "R&D": "(c) # ~!", "z": "d:e"}),
        ("{0:no,1:yes, 'a,b:c':d}", {"0": "no", "1": "yes", "a,b:c": "d"}),
        ("null", None),
    ],
)
def test_label_words_are_texts(typed: str, labels: dict[str, str] | None) -> None:
    """None of them is what YAML takes it for, whether typed, in JSON, or read back from a run."""
    config = compose.load([f"task.labels={typed}"])
    assert config.task.labels == labels
    assert reread(config) == config
    if labels:
        assert compose.load([f"task.labels={json.dumps(labels, ensure_ascii=False)}"]) == config


def test_label_words_in_conf_are_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unquoted ones that YAML takes for other values are refused."""
    shutil.copytree(keys.conf_dir(), tmp_path / "conf")
    for module in (compose, keys):
        monkeypatch.setattr(module, "conf_dir", lambda: tmp_path / "conf")
    file = tmp_path / "conf" / "task" / "own.yaml"
    own = "name: own\ntarget_length: 9\nreduce_decoder: false\nlabels: "
    file.write_text(f"{own}{{'0': 'no', '1': '1.50', 'on': 正面}}\n")
    assert compose.load(["task=own"]).task.labels == {"0": "no", "1": "1.50", "on": "正面"}
    for labels in ("{0: no}", "{'1': 1.50}", "{1: 正面}"):
        file.write_text(f"{own}{labels}\n")
        with pytest.raises(UserError, match=r"^task\.labels=.*: values and words are texts"):
            compose.load(["task=own"])


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("task.name=a b,正面", ["a b", "正面"]),
        ("task.labels.0=1.50,no", ["1.50", "no"]),
        ("task.labels={0: 是},{0: 不}", ["{0: 是}", "{0: 不}"]),
        ("task.source={a}, {b}", []),
        ("task.source='{a}','{b}, c'", ["'{a}'", "'{b}, c'"]),
        ("model=./a b,t5-large", ["./a b", "t5-large"]),
        ("task=mr,mrpc", ["mr", "mrpc"]),
        ("seed=1,2", ["1", "2"]),
        (
            "schedule.stages=[{share: 1}],[{depth: {encoder: 1}, share: 1}]",
            ["[{share: 1}]", "[{depth: {encoder: 1}, share: 1}]"],
        ),
    ],
)
def test_several_values_of_a_text(word: str, values: list[str]) -> None:
    assert keys.each(word) == values


def test_mappings_need_no_space_after_a_colon_and_keys_may_have_a_plus() -> None:
    """As in Hydra's own grammar."""
    spaced = compose.load(["schedule.stages=[{depth: {encoder: 2, decoder: 0.5}, share: 0.4}, {share: 0.6}]", "seed=3"])
    typed = compose.load(["schedule.stages=[{depth:{encoder:2,decoder:0.5},share:0.4},{share:0.6}]", "+seed=3"])
    assert typed == spaced


def test_a_choice_is_taken_as_typed() -> None:
    """YAML would read it as false."""
    assert compose.load(["prompt=late", "prompt.cache=off"]).prompt.cache == "off"


def test_own_stages_get_a_name_of_their_own() -> None:
    assert compose.load(["schedule.stages=[{share: 1.0}]"]).schedule.name == "custom"
    assert compose.load(["schedule.stages=[{share: 1.0}]", "schedule.name=mine"]).folder.name == "boolq-tiny-mine-s0"


def test_resolved_yaml_holds_every_key_and_shows_differences() -> None:
    first, second = (literal.dump(asdict(compose.load(words))) for words in (["seed=1"], ["seed=2", "optim.lr=0.2"]))
    tree = OmegaConf.create(first)
    for key in keys.settings():
        assert OmegaConf.select(tree, key, default="absent") != "absent"
    before, after = literal.leaves(literal.parse(first)), literal.leaves(literal.parse(second))
    assert set(before) >= {key for key in keys.settings() if key != "model.config"}
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert changed == {"seed": (1, 2), "optim.lr": (None, 0.2)}


@pytest.mark.parametrize(
    "text", ["- {depth: 0.5, share: 0.5}\n- {share: 0.5}\n", "stages: [{depth: 0.5, share: 0.5}, {share: 0.5}]\n"]
)
def test_a_schedule_may_be_a_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "halves.yaml"
    file.write_text(text)
    schedule = compose.load([f"schedule={file}", "schedule.reduce=both"]).schedule
    assert (schedule.name, schedule.reduce) == ("halves", "both")
    assert schedule.stages == [{"depth": 0.5, "share": 0.5}, {"share": 0.5}]


BOMB = "a: &a [1]\n" + "".join(
    f"{chr(ord(name) + 1)}: &{chr(ord(name) + 1)} [{f'*{name},' * 9}]\n" for name in "abcdefgh"
)


@pytest.mark.parametrize("text", ["3", "{", "stages: 3", "steps: []", "", BOMB])
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
    table = literal.own_table(keys.OTHER_NAMES)
    assert set(table) <= {*keys.settings(), *keys.GROUPS}
    names = [name for others in table.values() for name in others]
    assert len(names) == len(set(names))


def test_a_batch_has_no_more_examples_than_there_are() -> None:
    loaded = compose.load(["train.batch_size=32", "train.micro_batch=24", "engine.processes=4"])
    sizes = [loaded.with_batches_of(number).train for number in (None, 100, 16, 2)]
    assert [(train.batch_size, train.micro_batch) for train in sizes] == [(32, 24), (32, 24), (16, 16), (4, 4)]


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("experiment=large-cr", 1000),
        ("train.updates=150 train.batch_size=8", 64),
        ("train.updates=1000 train.batch_size=16", 160),
        ("train.updates=1000 train.batch_size=16 schedule.importance_examples=5000", 5000),
    ],
)
def test_neurons_are_scored_on_a_hundredth_of_what_a_run_trains_on(words: str, number: int) -> None:
    assert compose.load([*words.split(), "task=boolq", "model=t5-large"]).num_scored == number
