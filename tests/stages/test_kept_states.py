"""The states below a late prompt, kept: the same losses for less, and nothing wrong is ever read."""

import json
import re
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from fpt.__main__ import main
from fpt.backbones.backbone import read_config
from fpt.backbones.location import config_values
from fpt.backbones.shapes import Shape, Stack
from fpt.config import compose
from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig, PromptConfig
from fpt.data.encoded import Batch, KeptStates
from fpt.devices.engine import Engine
from fpt.pricing.flops import Price, price_of
from fpt.prompts.kinds import Late
from fpt.prompts.modules import drawn
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from fpt.tasks.catalogue import most_examples
from fpt.tasks.opening import open_task
from stages import kept_states, schedule
from stages.kept_states import StatesPlan, states_below
from stages.planning.costs import Memory, device_memory
from stages.schedule import num_below
from stages.selection import choose
from tests.conftest import ON_CPU, Outcome, quick_words, stopped_after
from tests.models import DATA, PRICED, late, prompted, t5

pytestmark = pytest.mark.dear

Cli = Callable[..., Outcome]
LATE = ["prompt=late", "prompt.bottleneck=8", "optim.lr=0.01", "train.save_every=3", "train.eval_every=20"]
# Below the prompt two blocks of half their neurons, then all three blocks, then the same.
LATE.append(
    "schedule.stages=[{depth: 0.5, width: 0.5, share: 0.3}, {depth: {encoder: 5, decoder: full}, share: 0.3},"
    " {share: 0.4}]"
)
KINDS = ("off", "memory")
ALL_OFF = StatesPlan("no stage comes back", 0, ("off",))  # a plan about training, not about validations


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> torch.Tensor:
    return torch.tensor([row["loss"] for row in lines(folder) if "loss" in row])


def learned(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "prompt.safetensors")


def one_at_a_time(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with a look whether what was made for the stage before is gone when a stage's is made."""
    before: list[weakref.ref[Any]] = []

    def make_alone(*about: Any) -> Any:
        assert all(made() is None for made in before), "two stages' states at once"
        made = make(*about)
        if made is not None:
            before.append(weakref.ref(made.rows if isinstance(made, KeptStates) else made))
        return made

    return make_alone


@pytest.fixture(scope="module")
def runs(trains: None, checkpoint: Path, boolq: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of a run through three stages that keeps no states, and of one that does; tests only read them."""
    place = tmp_path_factory.mktemp("kept")
    folders = {kind: place / kind / "run" for kind in KINDS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.kept_states.states_below", one_at_a_time(states_below))
        patch.setattr("stages.run.for_validations", one_at_a_time(kept_states.for_validations))
        for kind, folder in folders.items():
            assert main(["train", *quick_words(checkpoint, boolq, folder), *LATE, f"prompt.cache={kind}"]) == 0
    return folders


def test_the_losses_are_those_without(runs: dict[str, Path]) -> None:
    """To rounding: without, an example is computed in another batch; it moves, so that equal is not idle."""
    without = losses(runs["off"])
    torch.testing.assert_close(losses(runs["memory"]), without, rtol=1e-5, atol=0)
    for name, tensor in learned(runs["off"]).items():
        torch.testing.assert_close(learned(runs["memory"])[name], tensor, rtol=1e-3, atol=1e-4)
    assert (without[1:] - without[:-1]).abs().min() > 1e-4


def test_it_is_priced_as_one_pass_below_and_none_later(runs: dict[str, Path]) -> None:
    plans = {kind: json.loads((folder / "plan.json").read_text()) for kind, folder in runs.items()}
    assert plans["memory"]["stages"][2]["flops"] < plans["off"]["stages"][2]["flops"]
    assert plans["memory"]["states"]["stages"] == ["compute", "compute", "reuse"]
    assert [row["blocks_below"] for row in plans["memory"]["stages"]] == [2, 3, 3]
    for kind, plan in plans.items():
        told = [row["flops"] for row in lines(runs[kind]) if "loss" in row]
        assert told[-1] == pytest.approx(plan["flops"], rel=1e-6)
        assert [row["flops_states"] > 0 for row in plan["stages"]] == [kind != "off", kind != "off", False]


def test_without_room_the_run_can_go_on_without(
    cli: Cli, checkpoint: Path, boolq: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    """The first stage is over when there is none; what it has spent is not priced anew."""
    words = [*quick_words(checkpoint, boolq, tmp_path / "run"), *LATE]
    with stopped_after(7):
        cli("train", *words, "prompt.cache=memory")
    assert cli("train", *words, "prompt.cache=off", "resume=must").status == 0
    torch.testing.assert_close(losses(tmp_path / "run"), losses(runs["off"]), rtol=1e-5, atol=0)
    spent, kept, off = ([row["flops"] for row in lines(run)] for run in (tmp_path / "run", runs["memory"], runs["off"]))
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
    assert decided["bytes"] > 0
    room(monkeypatch, 0)
    assert cli("train", *words, "resume=must").status == 0
    assert json.loads((tmp_path / "run/plan.json").read_text())["states"] == decided


@pytest.mark.parametrize("rule", ["evenly", "outer"])
@pytest.mark.parametrize("block", [2, 3, 6])
def test_as_many_blocks_and_neurons_below_are_the_same_ones(block: int, rule: str) -> None:
    """A stage that takes states over has a model that is equal below the prompt, whatever is above it."""
    full, random = Shape(Stack(6, 24), Stack(6, 24)), torch.Generator().manual_seed(0)
    scores = {name: torch.rand(6, 24, generator=random) for name in full}
    found: dict[tuple[int, int], set[Any]] = {}
    for blocks, neurons, others in product(range(1, 7), (6, 12, 24), (3, 6)):
        chosen = choose(Shape(Stack(blocks, neurons), Stack(others, neurons)), full, scores, layer=block, rule=rule)
        below = tuple(kept for kept in chosen.source.blocks if kept < block)
        rows = chosen.source.neurons and chosen.source.neurons[: len(below)]
        found.setdefault((num_below(blocks, 6, block), neurons), set()).add((below, rows))
    assert [len(kept) for kept in found.values()] == [1] * len(found)
    assert len(set().union(*found.values())) == len(found)


def kept_of(model: PromptedModel, engine: Engine = ON_CPU) -> KeptStates:
    return states_below(model, DATA, 2, engine, lambda batches, _: batches)


@pytest.mark.parametrize(("name", "dtype"), [("torch", "float32"), ("deepspeed", "bfloat16")])
def test_what_is_kept_are_the_states_of_real_tokens(checkpoint: Path, name: str, dtype: str) -> None:
    engine = Engine(EngineConfig(name=name, dtype=dtype), torch.device("cpu"))
    model = prompted(checkpoint, late(3), dtype=engine.config.dtype)
    kept = kept_of(model, engine)
    assert kept.rows.dtype == getattr(torch, dtype)
    assert len(kept.rows) == sum(DATA.sources.lengths)
    for index in range(len(DATA)):
        alone = model.below(DATA.batch([index]))
        rounding = 2e-2 if dtype == "bfloat16" else 1e-5
        assert (kept.batch([index]) - alone).abs().max() < rounding * alone.abs().max()
    batch = replace(DATA, below=kept).batch([0, 2])
    assert torch.equal(batch.below[0], kept.batch([0])[0])
    assert torch.equal(batch.below[1, :2], kept.batch([2])[0])
    assert not batch.below[1, 2:].any()


def test_with_them_the_blocks_below_do_not_run(checkpoint: Path) -> None:
    model = prompted(checkpoint, late(3))
    ran: list[int] = []
    for number, block in enumerate(t5.blocks_of(model.body, "encoder")):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    kept = replace(DATA, below=kept_of(model))
    ran.clear()
    loss = model(kept.batch([0, 1, 2, 3]))
    assert ran == [3, 4, 5]
    torch.testing.assert_close(loss, model(DATA.batch([0, 1, 2, 3])))


def test_a_pass_above_them_is_priced_as_torch_counts_it() -> None:
    shape, prompt = Shape(Stack(5, 96), Stack(5, 96)), PromptConfig(kind="late", length=5, bottleneck=16)
    body = t5.skeleton(PRICED, shape).to_empty(device="cpu")
    body.set_attn_implementation("eager")  # the counter does not see into the CPU's fused attention
    model = prompted_model(body, Late(prompt).build(drawn(Late(prompt).shapes(64), 0), 2)).requires_grad_(False)
    ids = torch.ones(3, 32, dtype=torch.long)
    batch = Batch(ids, torch.ones_like(ids), torch.full((3, 9), 8))
    counts = []
    for run in (lambda: model.below(batch), lambda: model(replace(batch, below=torch.randn(3, 32, 64)))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        counts.append(counter.get_total_flops())
    price, sizes = Price(PRICED), {"source": 37, "target": 9, "below": 2, "prompt": prompt}
    assert counts[0] == 3 * price.below(shape, source=32, target=1, blocks=2)
    assert counts[1] == 3 * price.forward(shape, **sizes) - counts[0]
    assert 3 * (price.update(shape, **sizes) - price.update(shape, **sizes, is_kept=True)) == counts[0]


def price_with(d_model: int) -> Price:
    return Price(read_config({"model_type": "t5", "d_model": d_model, "d_ff": 4, "num_layers": 24}, "narrow"))


ONE, FIVE = price_with(1), price_with(5)


def config_of(*words: str) -> RunConfig:
    given = {"engine.device": "cpu", "engine.dtype": "float32"} | dict(word.split("=", 1) for word in words)
    return compose.load(["model=t5-large", "task=boolq", "schedule=pt", *map("=".join, given.items())])


def decided(*words: str, examples: int | None = 100, tokens: int = 1000, cost: Price = ONE) -> StatesPlan:
    config = config_of("prompt=late", *words)
    plan = kept_states.decide(config, schedule.of(config), examples=examples, tokens=tokens, cost=cost)
    assert plan is not None
    return plan


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Have this many bytes of memory be free."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))


def test_auto_takes_a_quarter_of_the_free_memory_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 tokens of one number take 4,000 bytes."""
    room(monkeypatch, 16_000)
    assert [decided(tokens=tokens).bytes for tokens in (1000, 1001)] == [4000, 0]
    assert decided("engine.processes=2").bytes == 0
    assert decided("schedule=ld").bytes == 4000  # one stage's at a time


def test_auto_keeps_nothing_that_is_not_used_again() -> None:
    assert decided("train.updates=10", examples=320).bytes == 0
    assert decided("train.updates=10", examples=319).bytes == 4000
    assert decided("prompt.layer=0", "prompt.pool=mean").bytes == 0
    assert decided("schedule=cr", "train.updates=50", examples=400).stages == ("off", "off", "off", "compute")
    config = config_of()
    assert kept_states.decide(config, schedule.of(config), examples=100, tokens=1000, cost=ONE) is None


def test_on_a_card_auto_keeps_what_is_copied_sooner_than_computed() -> None:
    """T5-Large in bfloat16: a state is 2 KiB, copied in 0.2 µs; a block is 25 MFLOP of it, three take 0.19 µs."""
    cost = price_of(read_config(*config_values(compose.load(["model=t5-large"]).model)))

    def is_kept(*more: str) -> bool:
        return decided("engine.dtype=bfloat16", *more, cost=cost).bytes > 0

    assert is_kept("engine.device=cuda")
    assert is_kept("engine.device=cpu", "prompt.layer=3")
    assert not is_kept("engine.device=cuda", "prompt.layer=3")
    assert is_kept("engine.device=cuda", "prompt.layer=3", "prompt.cache=memory")


def test_an_expansion_above_the_prompt_or_of_the_decoder_keeps_them() -> None:
    half, whole = "{encoder: 12, decoder: 6}", "{encoder: 12, decoder: full}"
    grows = f"[{{depth: {half}, share: 0.5}}, {{depth: {whole}, share: 0.3}}, {{share: 0.2}}]"
    words = (f"schedule.stages={grows}", "schedule.reduce=both", "prompt.cache=memory")
    assert decided(*words).stages == ("compute", "reuse", "compute")


@pytest.mark.trains
def test_what_was_asked_for_and_has_no_room_is_an_error_before_anything_is_computed(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, 9999)
    failed = cli("train", *quick, *LATE, "prompt.cache=memory")
    assert failed.status == 2
    said = "prompt.cache=memory: the states to keep take .*B, and 10 kB is free; with prompt.cache=off"
    assert re.search(said, failed.err.splitlines()[-1])
    assert not (tmp_path / "run/measured.json").exists()


def test_plan_tells_the_size_and_every_expansion(cli: Cli) -> None:
    words = ["task=boolq", "schedule=ld", "prompt=late", "engine.device=cpu"]
    told = cli("plan", *words, "prompt.cache=memory").out
    assert "kept in memory, 262 MB for each process" in told  # 4,000 examples, 128 positions, 128 numbers, 4 bytes
    plan = json.loads(cli("plan", *words, "prompt.cache=memory", "--json").out)
    assert plan["states"]["stages"] == ["compute"] * 4
    assert [stage["blocks_below"] for stage in plan["stages"]] == [1, 2, 3, 4]
    own = json.loads(cli("plan", *words, "task.data=nowhere", "prompt.cache=memory", "--json").out)
    assert own["states"]["bytes"] == 0
    soft = json.loads(cli("plan", "task=files", "schedule=pt", "--json").out)
    assert soft["states"] is None


def test_validations_keep_theirs_unless_that_is_off_or_nothing_stays_the_same(checkpoint: Path) -> None:
    def kept(*words: str, plan: StatesPlan | None = ALL_OFF, in_step: bool = False, device: str = "cpu") -> bool:
        model = prompted(checkpoint, late())
        model.in_step = in_step
        return kept_states.for_validations(config_of(*words), plan, model, torch.device(device)) is not None

    assert kept("prompt=late")
    assert not kept("prompt=late", "prompt.cache=off")
    assert not kept("prompt=late", device="cuda")
    assert not kept("prompt=late", in_step=True)  # all processes would have to have room
    assert not kept("prompt=soft", plan=None)


def test_on_a_cpu_they_take_from_what_a_stage_may_have() -> None:
    def left(*words: str) -> int:
        config, plan = config_of("engine.device_memory=1MB", *words), decided(*words, examples=10, cost=FIVE)
        memory = Memory(FIVE, schedule.of(config), device_memory(config.engine), plan.bytes, (1, 1))
        return memory.of_each(config.engine)

    assert left("prompt=late", "prompt.cache=memory") == 980_000
    assert left("prompt=late", "prompt.cache=off") == 1_000_000


def test_how_many_examples_there_are_at_most() -> None:
    def most(*words: str) -> int | None:
        return most_examples(compose.load(list(words)))[0]

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
    assert "prompt.cache=memory: is for prompt=late and prompt.place=suffix" in done.err
