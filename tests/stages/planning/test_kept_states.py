"""The states below a late prompt, kept: the same losses for less, and nothing wrong is ever read."""

import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from fpt.__main__ import main
from fpt.backbones.backbone import Backbone
from fpt.backbones.families import read_config
from fpt.backbones.location import config_values
from fpt.backbones.shapes import Selection, Shape, Stack, StackSelection
from fpt.config import compose
from fpt.config.schema import EngineConfig, PromptConfig
from fpt.data.encoded import Batch
from fpt.devices.engine import Engine
from fpt.pricing.flops import Price, price_of
from fpt.prompts.kept_states import StatesBelow
from fpt.prompts.late import Late
from fpt.prompts.modules import drawn
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import Progress
from fpt.tasks.catalogue import most_train_examples
from fpt.tasks.opening import open_task
from stages import schedule
from stages.inputs import Inputs, open_inputs
from stages.planning import kept_states as planning
from stages.planning.needs import device_of
from stages.state_keeper import origin
from tests.conftest import ON_CPU, Outcome, no_file_longer_than, quick_words, stopped_after
from tests.models import DATA, PRICED, late, prompted, same, t5

pytestmark = pytest.mark.dear

Cli = Callable[..., Outcome]
LATE = ["prompt=late", "prompt.bottleneck=8", "optim.lr=0.01", "train.save_every=3", "train.eval_every=20"]
# Below the prompt two blocks of half their neurons, then all three blocks, then the same.
LATE.append(
    "schedule.stages=[{depth: 0.5, width: 0.5, share: 0.3}, {depth: {encoder: 5, decoder: full}, share: 0.3},"
    " {share: 0.4}]"
)
KINDS = ("off", "memory", "disk")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> torch.Tensor:
    return torch.tensor([row["loss"] for row in lines(folder) if "loss" in row])


def learned(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "prompt.safetensors")


def kept_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("cache/states/*.npy"))


@pytest.fixture(scope="module")
def runs(trains: None, checkpoint: Path, boolq: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a run through three stages for every place; tests only read them."""
    place = tmp_path_factory.mktemp("kept")
    folders = {kind: place / kind / "run" for kind in KINDS}
    for kind, folder in folders.items():
        assert main(["train", *quick_words(checkpoint, boolq, folder), *LATE, f"prompt.cache={kind}"]) == 0
    return folders


def test_the_losses_are_those_without(runs: dict[str, Path]) -> None:
    """To rounding: without, an example is computed in another batch; it moves, so that equal is not idle."""
    without = losses(runs["off"])
    for kind in ("memory", "disk"):
        torch.testing.assert_close(losses(runs[kind]), without, rtol=1e-5, atol=0)
        for name, tensor in learned(runs["off"]).items():
            torch.testing.assert_close(learned(runs[kind])[name], tensor, rtol=1e-3, atol=1e-4)
    assert (without[1:] - without[:-1]).abs().min() > 1e-4


def test_memory_and_disk_are_the_same_to_the_last_bit(runs: dict[str, Path]) -> None:
    assert same(runs["memory"], runs["disk"])
    assert torch.equal(losses(runs["memory"]), losses(runs["disk"]))


def test_it_is_priced_as_one_pass_below_and_none_later(runs: dict[str, Path]) -> None:
    plans = {kind: json.loads((folder / "plan.json").read_text()) for kind, folder in runs.items()}
    assert plans["memory"]["stages"] == plans["disk"]["stages"]
    stages = plans["memory"]["states"]["stages"]
    assert [(row["blocks"], row["does"]) for row in stages] == [(2, "compute"), (3, "compute"), (3, "reuse")]
    sizes = [file.stat().st_size - 128 for file in kept_files(runs["disk"].parent)]  # numpy's header
    assert sizes == [plans["disk"]["states"]["bytes"]] * 2
    for folder, plan in zip(runs.values(), plans.values(), strict=True):
        told = [row["flops"] for row in lines(folder) if "loss" in row]
        assert told[-1] == pytest.approx(plan["flops"], rel=1e-6)
        costs = [row["flops_states"] > 0 for row in plan["stages"]]
        assert costs == ([False] * 3 if folder == runs["off"] else [True, True, False])


@pytest.mark.parametrize(("kind", "update"), [("disk", 2), ("memory", 14)])
def test_stopped_and_resumed_is_the_same(
    cli: Cli, checkpoint: Path, boolq: Path, runs: dict[str, Path], tmp_path: Path, kind: str, update: int
) -> None:
    words = [*quick_words(checkpoint, boolq, tmp_path / "run"), *LATE, f"prompt.cache={kind}"]
    with stopped_after(update):
        cli("train", *words)
    there = {file: file.stat().st_mtime_ns for file in kept_files(tmp_path)}
    assert bool(there) == (kind == "disk")
    assert cli("train", *words, "resume=must").status == 0
    assert same(tmp_path / "run", runs[kind])
    assert torch.equal(losses(tmp_path / "run"), losses(runs[kind]))
    assert {file: file.stat().st_mtime_ns for file in there} == there


def test_without_room_the_run_can_go_on_without(
    cli: Cli, checkpoint: Path, boolq: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    """The first stage's states are there, the second's cannot be; what the first has spent is not priced anew."""
    words = [*quick_words(checkpoint, boolq, tmp_path / "run"), *LATE]
    with stopped_after(5):
        cli("train", *words, "prompt.cache=disk")
    with no_file_longer_than(100_000):
        failed = cli("train", *words, "prompt.cache=disk")
    assert failed.status == 2
    assert "prompt.cache=off goes on without" in failed.err.splitlines()[-1]
    assert "Traceback" not in failed.err
    assert len(list((tmp_path / "cache/states").iterdir())) == 2
    assert cli("train", *words, "prompt.cache=off", "resume=must").status == 0
    torch.testing.assert_close(losses(tmp_path / "run"), losses(runs["off"]), rtol=1e-5, atol=0)
    spent, kept, off = ([row["flops"] for row in lines(run)] for run in (tmp_path / "run", runs["disk"], runs["off"]))
    assert spent[:6] == kept[:6]
    assert spent[-1] - spent[6] == off[-1] - off[6]


@pytest.mark.trains
def test_what_auto_decided_holds_to_the_end(
    cli: Cli, checkpoint: Path, boolq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that is free at the start, and no longer when the run goes on."""
    words = [*quick_words(checkpoint, boolq, tmp_path / "run"), *LATE, "task.shots=3"]
    with stopped_after(7):
        cli("train", *words)
    decided = json.loads((tmp_path / "run/plan.json").read_text())["states"]
    assert decided["where"] == "memory"
    room(monkeypatch, 0, (0, 0))
    assert cli("train", *words, "resume=must").status == 0
    assert json.loads((tmp_path / "run/plan.json").read_text())["states"] == decided


def test_states_are_told_apart_by_what_they_are_of(checkpoint: Path, tmp_path: Path, boolq: Path) -> None:
    """By the model, the task, the blocks below, and the neurons of these alone."""
    words = [*quick_words(checkpoint, boolq, tmp_path / "run"), *LATE, "engine=torch"]
    config = compose.load(words)
    inputs = open_inputs(config, open_task(config), Progress())
    wide = tuple(range(24))
    above, below = ((wide,) * 5 + (wide[1:],), (wide[1:],) + (wide,) * 5)
    decoder = StackSelection(tuple(range(6)))
    kept = [
        StackSelection(tuple(range(6))),
        StackSelection((0, 2, 5)),
        StackSelection(tuple(range(6)), (wide,) * 6),
        StackSelection(tuple(range(6)), below),
    ]
    others = [
        replace(inputs, task=replace(inputs.task, name="other")),
        replace(inputs, backbone=other_of(inputs)),
    ]

    def name(opened: Inputs, stack: StackSelection) -> str:
        return json.dumps(origin(opened, 3, Selection(stack, decoder)))

    names = {name(inputs, stack) for stack in kept} | {name(made, kept[0]) for made in others}
    assert len(names) == 6
    assert name(inputs, StackSelection(tuple(range(6)), above)) == name(inputs, kept[2])


def other_of(inputs: Inputs) -> Backbone:
    """The same backbone as if its weights were others."""
    made = replace(inputs.backbone)
    vars(made)["fingerprint"] = "other"
    return made


def filler(model: PromptedModel, engine: Engine = ON_CPU) -> StatesBelow:
    return StatesBelow(model, DATA, 2, engine, lambda batches, _: batches)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_kept_are_the_states_of_real_tokens(checkpoint: Path, tmp_path: Path, dtype: str) -> None:
    engine = Engine(EngineConfig(name="torch", dtype=dtype), torch.device("cpu"))
    model = prompted(checkpoint, late(3), dtype=engine.dtype)
    filled = filler(model, engine)
    for kept in (filled.in_memory(), filled.in_file(tmp_path, {}), filled.in_file(tmp_path, {})):
        assert kept.rows.dtype == engine.dtype
        assert len(kept.rows) == sum(DATA.sources.lengths)
        for index in range(len(DATA)):
            alone = model.below(DATA.batch([index]))
            rounding = 2e-2 if dtype == "bfloat16" else 1e-5
            assert (kept.batch([index]) - alone).abs().max() < rounding * alone.abs().max()
        batch = replace(DATA, below=kept).batch([0, 2])
        assert torch.equal(batch.below[0], kept.batch([0])[0])
        assert torch.equal(batch.below[1, :2], kept.batch([2])[0])
        assert not batch.below[1, 2:].any()
    assert torch.equal(filled.in_memory().rows, filled.in_file(tmp_path, {}).rows)


@pytest.mark.parametrize("harm", ["a bit", "its end", "all of it", "its description", "what that says", "another's"])
def test_a_damaged_file_is_computed_again(checkpoint: Path, tmp_path: Path, harm: str) -> None:
    filled = filler(prompted(checkpoint, late(3)))
    rows = filled.in_file(tmp_path, {}).rows.clone()
    (file,) = tmp_path.glob("*.npy")
    whole, description = file.read_bytes(), file.with_suffix(".json")
    said = description.read_text()
    if harm == "a bit":
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif harm == "its end":
        file.write_bytes(whole[:-40])
    elif harm == "all of it":
        file.write_bytes(b"")
    elif harm == "another's":
        description.write_text(json.dumps(json.loads(said) | {"device": "cuda"}))
    else:
        description.write_text("{" if harm == "its description" else "null")
    assert torch.equal(filled.in_file(tmp_path, {}).rows, rows)
    assert (file.read_bytes(), description.read_text()) == (whole, said)


def test_with_them_the_blocks_below_do_not_run(checkpoint: Path) -> None:
    model = prompted(checkpoint, late(3))
    ran: list[int] = []
    for number, block in enumerate(t5.blocks_of(model.body, "encoder")):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    kept = replace(DATA, below=filler(model).in_memory())
    ran.clear()
    loss = model(kept.batch([0, 1, 2, 3]))
    assert ran == [3, 4, 5]
    torch.testing.assert_close(loss, model(DATA.batch([0, 1, 2, 3])))


def test_every_file_is_named_after_what_decides_its_content(checkpoint: Path, tmp_path: Path) -> None:
    model = prompted(checkpoint, late(3))
    plain = filler(model)
    others = [
        (plain, {"task": "other"}),
        (replace(plain, batch_size=3), {"task": "one"}),
        (replace(plain, data=replace(DATA, sources=DATA.targets)), {"task": "one"}),
    ]
    plain.in_file(tmp_path, {"task": "one"})
    for number, (made, about) in enumerate(others, 2):
        made.in_file(tmp_path, about)
        assert len(list(tmp_path.glob("*.npy"))) == number


def test_what_a_killed_run_left_half_made_goes(checkpoint: Path, tmp_path: Path) -> None:
    filled = filler(prompted(checkpoint, late(3)))
    filled.in_file(tmp_path, {})
    (file,) = tmp_path.glob("*.npy")
    name = f"{file.stem}.{socket.gethostname()}"
    parts = [tmp_path / f"{name}-{number}.part{more}" for number in (2**22 + 1, 1) for more in ("", ".json")]
    for part in parts:
        part.write_bytes(b"half")
    filled.in_file(tmp_path, {"task": "other"})
    assert [part.exists() for part in parts] == [False, False, True, True]


def test_a_pass_above_them_is_priced_as_torch_counts_it() -> None:
    shape, prompt = Shape(Stack(5, 96), Stack(5, 96)), PromptConfig(kind="late", length=5, bottleneck=16)
    body = t5.skeleton(PRICED, shape).to_empty(device="cpu")
    body.set_attn_implementation("eager")  # the counter does not see into the CPU's fused attention
    model = PromptedModel(body, Late(prompt).build(drawn(Late(prompt).shapes(64), 0), 2)).requires_grad_(False)
    ids = torch.ones(3, 32, dtype=torch.long)
    batch = Batch(ids, torch.ones_like(ids), torch.full((3, 9), 8))
    counts = []
    for run in (lambda: model.below(batch), lambda: model(replace(batch, below=torch.randn(3, 32, 64)))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        counts.append(counter.get_total_flops())
    price, sizes = Price(PRICED), {"batch": 3, "source": 37, "target": 9, "below": 2, "prompt": prompt}
    assert counts[0] == price.below(shape, batch=3, source=32, target=1, blocks=2)
    assert counts[1] == price.forward(shape, **sizes) - counts[0]
    assert price.update(shape, **sizes) - price.update(shape, **sizes, is_kept=True) == counts[0]


def price_with(d_model: int) -> Price:
    return Price(read_config({"model_type": "t5", "d_model": d_model, "d_ff": 4, "num_layers": 24}, "narrow"))


ONE, FIVE = price_with(1), price_with(5)


def decided(*words: str, examples: int | None = 100, tokens: int = 1000) -> planning.KeptStatesPlan | None:
    config = compose.load(["model=t5-large", "task=boolq", "schedule=pt", *words])
    return planning.decide(config, schedule.of(config), examples=examples, tokens=tokens, cost=ONE)


def room(monkeypatch: pytest.MonkeyPatch, memory: int, disk: tuple[int, int]) -> None:
    """So many bytes are free, and held by states already."""
    monkeypatch.setattr(planning, "_room", lambda _, where: {"memory": (memory, 0), "disk": disk}[where])


def test_auto_takes_memory_then_disk_then_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, 16_000, (80_000, 0))
    where = {tokens: decided("prompt=late", tokens=tokens).where for tokens in (1000, 1001, 10_000, 10_001)}
    assert where == {1000: "memory", 1001: "disk", 10_000: "disk", 10_001: "off"}
    assert decided("prompt=late", "engine.processes=2").where == "disk"
    assert decided("prompt=late", "schedule=ld", tokens=2500).where == "disk"  # four files
    assert decided("prompt=late", "schedule=ld", tokens=2501).where == "off"
    room(monkeypatch, 0, (40_000, 40_000))  # what an earlier run has left counts as if it were free
    assert decided("prompt=late", tokens=10_000).where == "disk"
    room(monkeypatch, 0, (39_999, 80_000))
    assert decided("prompt=late", tokens=10_000).where == "off"


def test_auto_keeps_nothing_that_is_not_used_again() -> None:
    assert decided("prompt=late", "train.updates=10", examples=320).where == "off"
    assert decided("prompt=late", "train.updates=10", examples=319).where == "memory"
    assert decided("prompt=late", "prompt.layer=0").where == "off"
    stages = decided("prompt=late", "schedule=cr", "train.updates=50", examples=400).stages
    assert [stage.does for stage in stages] == ["off", "off", "off", "compute"]
    assert decided() is None


def test_on_a_card_auto_keeps_what_is_copied_sooner_than_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """T5-Large in bfloat16: a state is 2 KiB, a block 25 MFLOP of it; 12 blocks take 0.76 µs, a disk 1 µs."""
    cost, words = price_of(read_config(*config_values(compose.load(["model=t5-large"]).model))), "engine.dtype=bfloat16"

    def where(*more: str) -> str:
        config = compose.load(["model=t5-large", "task=boolq", "schedule=pt", "prompt=late", words, *more])
        plan = planning.decide(config, schedule.of(config), examples=100, tokens=1000, cost=cost)
        assert plan is not None
        return plan.where

    room(monkeypatch, 10**9, (10**9, 0))
    assert where("engine.device=cuda") == where("engine.device=cpu") == "memory"
    assert where("engine.device=cuda", "prompt.layer=3") == "off"
    assert where("engine.device=cuda", "prompt.layer=3", "prompt.cache=memory") == "memory"
    room(monkeypatch, 0, (10**9, 0))
    assert (where("engine.device=cuda"), where("engine.device=cpu")) == ("off", "disk")
    assert where("engine.device=cuda", "prompt.layer=20") == "disk"


def test_an_expansion_above_the_prompt_or_of_the_decoder_keeps_them() -> None:
    half, whole = "{encoder: 12, decoder: 6}", "{encoder: 12, decoder: full}"
    grows = f"[{{depth: {half}, share: 0.5}}, {{depth: {whole}, share: 0.3}}, {{share: 0.2}}]"
    stages = decided("prompt=late", f"schedule.stages={grows}", "schedule.reduce=both", "prompt.cache=memory").stages
    assert [(stage.blocks, stage.does) for stage in stages] == [(6, "compute"), (6, "reuse"), (12, "compute")]


@pytest.mark.trains
@pytest.mark.parametrize(("where", "other"), [("memory", "disk"), ("disk", "memory")])
def test_what_was_asked_for_and_has_no_room_is_an_error_before_anything_is_computed(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, other: str
) -> None:
    room(monkeypatch, 9999, (9000, 999))
    failed = cli("train", *quick, *LATE, f"prompt.cache={where}")
    assert failed.status == 2
    said = f"prompt.cache={where}: the states below the prompt take .*B, and 10 kB is free; prompt.cache={other} may"
    assert re.search(said, failed.err.splitlines()[-1])
    assert not (tmp_path / "run/measured.json").exists()


def test_plan_tells_the_size_and_every_expansion(cli: Cli) -> None:
    words = ["task=boolq", "schedule=ld", "prompt=late", "engine.dtype=bfloat16"]
    told = cli("plan", *words, "prompt.cache=disk").out
    assert "kept on disk, 524 MB in 4 files" in told  # each of 4,000 examples, 128 positions, 128 numbers, 2 bytes
    assert re.findall(r"\n +\d +(\d) +(computed(?: anew)?) ", told) == [
        (str(blocks), "computed anew" if blocks > 1 else "computed") for blocks in range(1, 5)
    ]
    own = json.loads(cli("plan", *words, "task.data=nowhere", "prompt.cache=memory", "--json").out)
    assert [own["states"][name] for name in ("where", "examples", "bytes")] == ["off", None, None]
    soft = json.loads(cli("plan", "task=files", "schedule=pt", "--json").out)
    assert soft["states"] is None


def test_on_a_cpu_they_take_from_what_a_stage_may_have() -> None:
    def left(*words: str) -> int:
        config = compose.load(["model=t5-large", "schedule=pt", "prompt=late", "engine.device_memory=1MB", *words])
        plan = planning.decide(config, schedule.of(config), examples=10, tokens=1000, cost=FIVE)
        assert plan is not None
        return device_of(config.engine, kept_in_memory=plan.in_memory).of_each(1)

    assert left("prompt.cache=memory", "engine.device=cpu") == 980_000
    assert left("prompt.cache=disk", "engine.device=cpu") == 1_000_000
    assert left("prompt.cache=off", "engine.device=cpu") == 1_000_000


def test_how_many_examples_there_are_at_most() -> None:
    def most(*words: str) -> int | None:
        return most_train_examples(compose.load(list(words)))

    large = ("model=t5-large", "task=cb")
    assert [most(*large), most(*large, "task.train_examples=300"), most(*large, "task.train_examples=30")] == [
        250,
        250,
        30,
    ]
    assert most(*large, "task.shots=8") == 24
    assert most("task=boolq") == len(open_task(compose.load(["task=boolq"])).train)
    assert most("task=boolq", "task.train_examples=5000") == 4000  # as many as there are
    assert most(*large, "task.data=nowhere") is None
    assert most("model=t5-large", "task=record") is None
    assert most("task=files", "task.train_examples=7") == 7


def test_it_is_for_late_prompts_alone(cli: Cli, quick: list[str]) -> None:
    done = cli("train", *quick, "prompt.cache=memory")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "prompt.cache=memory: is for prompt=late; this is prompt=soft" in done.err
