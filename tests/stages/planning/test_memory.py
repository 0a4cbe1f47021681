"""Whether a device's memory is enough, for which engine and micro-batch, and the way out where it is not."""

import pytest
import torch

from fpt.config.compose import load
from fpt.errors import UserError
from stages import schedule
from stages.planning.decide import Plan, check_fits, plan_ahead

pytestmark = pytest.mark.dear

XXL = ("model=t5-xxl", "schedule=ld", "engine.dtype=float32")
PLAIN = "train.activation_checkpointing=false"


def memory(*words: str) -> Plan:
    config = load([*words])
    return plan_ahead(config, schedule.of(config))


def test_a_plan_says_what_fits_and_what_would() -> None:
    roomy = memory(*XXL, "engine.device_memory=1TB")
    assert roomy.fits
    assert roomy.engine == "torch"
    sizes = [stage.total for stage in roomy.stages]
    assert sizes == sorted(sizes)
    assert all(stage.total == stage.weights + stage.activations + stage.rest for stage in roomy.stages)
    less = memory(*XXL, "engine.device_memory=1TB", "train.activation_checkpointing=true")
    pairs = zip(roomy.stages, less.stages, strict=True)
    assert all(without.activations < plain.activations / 4 for plain, without in pairs)


@pytest.mark.parametrize(
    "word",
    [
        "train.micro_batch=8",
        "train.activation_checkpointing=true",
        "engine.dtype=bfloat16",
        "engine.quantize=int8",
        "engine.quantize=nf4",
        "engine=deepspeed engine.processes=8",
        "engine=deepspeed engine.offload=cpu",
    ],
)
def test_what_is_said_to_take_less_does(word: str) -> None:
    words = (*XXL, "engine=torch", "engine.device_memory=40GB", "train.micro_batch=32", PLAIN)
    assert memory(*words, *word.split()).stages[-1].total < memory(*words).stages[-1].total


def test_auto_is_torch_where_it_fits_and_deepspeed_where_not() -> None:
    for size, name in (("1TB", "torch"), ("40GB", "deepspeed")):
        words = [*XXL, f"engine.device_memory={size}", "engine.processes=8", "train.micro_batch=1"]
        plan = memory(*words)
        assert plan.engine == name
        assert plan.reasons[0].startswith(f"engine={name}")
        assert memory(*words, "engine=torch").engine == "torch"


def plan_as_one_of_8(monkeypatch: pytest.MonkeyPatch, *words: str) -> Plan:
    for name, value in {"WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 8, "RANK": 0, "LOCAL_RANK": 0}.items():
        monkeypatch.setenv(name, str(value))
    return memory(*words)


def test_whoever_starts_the_processes_the_plan_is_for_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*XXL, "engine.device_memory=40GB"]
    wanted = memory(*words, "engine.processes=8")
    plan = plan_as_one_of_8(monkeypatch, *words)
    assert (plan.engine, plan.processes, plan.micro_batch) == ("deepspeed", 8, 4)
    assert (plan.engine, plan.stages, plan.micro_batch) == (wanted.engine, wanted.stages, wanted.micro_batch)


def test_auto_stays_with_torch_where_sharing_wins_nothing() -> None:
    large = ("model=t5-large", "schedule=ld", "engine.dtype=float32", "engine.device_memory=24GiB")
    plan = memory(*large, "train.micro_batch=32", PLAIN)
    assert plan.engine == "torch"
    assert not plan.fits


def test_auto_is_the_largest_micro_batch_that_fits() -> None:
    words = (*XXL, "engine=torch", "engine.device_memory=80GB", PLAIN)
    found = memory(*words, "train.micro_batch=auto").micro_batch
    assert found > 1
    assert memory(*words, f"train.micro_batch={found}").fits
    assert not memory(*words, f"train.micro_batch={found + 1}").fits


def test_a_cards_free_memory_less_a_reserve_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the largest micro-batch that fits is the default there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (30 * 2**30, 80 * 2**30))
    plan = memory("model=t5-large", "schedule=pt")
    assert plan.device_memory == 29 * 2**30
    assert plan.fits
    assert 1 < plan.micro_batch < 32
    assert not memory("model=t5-large", "schedule=pt", f"train.micro_batch={plan.micro_batch + 1}", PLAIN).fits
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory("model=t5-large", "schedule=pt").micro_batch == 32


def test_a_card_that_is_not_here_has_the_memory_that_is_given() -> None:
    if torch.cuda.is_available():
        pytest.skip("a card is here")
    with pytest.raises(UserError, match="there is no card here to plan for; give the memory of"):
        memory("model=t5-small", "schedule=pt", "engine.device=cuda")
    given = memory("model=t5-small", "schedule=pt", "engine.device=cuda", "engine.device_memory=8GiB")
    assert given.device_memory == 8 * 2**30


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("t5-xl", "24GiB"),
        ("t5-xxl", "24GiB"),
        ("t5-xxl", "40GiB"),
        ("t5-xxl", "80GiB"),
        pytest.param("t5-xl", "40GiB", marks=pytest.mark.slow),
        pytest.param("t5-xl", "80GiB", marks=pytest.mark.slow),
    ],
)
def test_large_models_fit_into_a_card_by_default(model: str, size: str) -> None:
    """In bfloat16, on one card; and blocks are computed again on the way back only where nothing fits without."""
    words = (f"model={model}", "schedule=pt", "engine.device=cuda", f"engine.device_memory={size}")
    plan = memory(*words)
    assert plan.fits
    assert (plan.engine, plan.dtype, plan.quantize) == ("torch", "bfloat16", "none")
    assert plan.activation_checkpointing == ((model, size) == ("t5-xxl", "24GiB"))
    if plan.activation_checkpointing:
        packed = memory(*words, "engine.quantize=int8")
        assert packed.fits
        assert not packed.activation_checkpointing
        assert packed.micro_batch > plan.micro_batch


def test_what_packed_weights_take_is_counted() -> None:
    """And on a CPU blocks are computed again only where that is asked for."""
    words = [*XXL, "engine.dtype=bfloat16", "engine.device_memory=80GB", "train.micro_batch=1"]
    plain, eight, four = (memory(*words, f"engine.quantize={how}").stages[-1] for how in ("none", "int8", "nf4"))
    assert plain.activations == eight.activations == four.activations
    assert eight.weights == pytest.approx(plain.weights / 2, rel=0.07)
    assert four.weights == pytest.approx(plain.weights / 4, rel=0.15)
    assert not memory("model=t5-large", "schedule=pt").activation_checkpointing


def test_a_run_of_which_not_one_example_fits_is_refused() -> None:
    config = load([*XXL, "engine=torch", "engine.device_memory=40GB", "train.micro_batch=auto"])
    with pytest.raises(UserError, match=r"one example takes .*; fpt plan says what takes less"):
        check_fits(config, plan_ahead(config, schedule.of(config)))
