"""A late prompt's run, whole: through growing models, stopped and resumed, scored, asked, priced, reported."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from fpt.__main__ import main
from fpt.backbones.shapes import Shape, Stack
from fpt.config.schema import PromptConfig
from fpt.data.encoded import Batch
from fpt.errors import UserError
from fpt.pricing.flops import Price
from fpt.prompts.files import open_prompt
from fpt.prompts.kinds import Late
from fpt.prompts.modules import drawn
from fpt.prompts.readers import prompted_model
from fpt.runs.run import open_run
from fpt.training.checkpoint import dump_prompt
from fpt.training.optimizer import rate
from stages.measured import importance
from tests.conftest import ON_CPU, Outcome, quick_words
from tests.models import DATA, PRICED, late, prompted, t5

pytestmark = pytest.mark.dear

Cli = Callable[..., Outcome]
LATE = ["prompt=late", "schedule=cr", "prompt.bottleneck=8"]


def losses(folder: Path) -> list[dict[str, float]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: row[key] for key in ("update", "loss", "lr", "flops")} for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def whole(trains: None, checkpoint: Path, boolq: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped; tests only read it."""
    folder = tmp_path_factory.mktemp("late") / "run"
    assert main(["train", *quick_words(checkpoint, boolq, folder), *LATE]) == 0
    return folder


def test_every_stage_keeps_the_block_below_the_prompt(whole: Path) -> None:
    kept = [stage.values["encoder_blocks"] for stage in open_run(whole).stages]
    assert kept == [[2, 5], [0, 2, 5], [0, 1, 2, 3, 5], [0, 1, 2, 3, 4, 5]]


def test_it_has_no_vectors_to_show(cli: Cli, whole: Path) -> None:
    done = cli("show", f"run={whole}")
    assert (done.status, len(done.err.strip().splitlines())) == (2, 1)
    assert "5 vectors of 32 numbers, made from each example's states" in done.err
    assert "only a soft prompt's vectors stand among the embeddings" in done.err


def test_what_is_learned_is_the_generator_and_its_file_says_how_it_is_used(whole: Path) -> None:
    sizes = {"down": (8, 32), "down_bias": (8,), "up": (160, 8), "up_bias": (160,)}
    for file in (whole / "prompt.safetensors", *whole.glob("stages/*/prompt.safetensors")):
        assert {name: tuple(tensor.shape) for name, tensor in load_file(file).items()} == sizes
        with safe_open(file, framework="pt") as handle:
            about = json.loads(handle.metadata()["fpt"])
        wanted = {"kind": "late", "layer": 3, "length": 5, "generator": "npg", "pool": "first"}
        assert {name: about[name] for name in wanted} == wanted


def test_the_learning_rate_rises_and_falls_over_all_stages(whole: Path) -> None:
    config = open_run(whole).config.optim
    assert [row["lr"] for row in losses(whole)] == [rate(config, update, 20) for update in range(20)]
    assert config.lr == 0.001


def test_it_costs_less_than_an_input_prompt_of_its_length(whole: Path) -> None:
    result = open_run(whole).result
    plan = open_run(whole).plan
    assert plan["stages"][-1]["flops_ratio"] < 1
    assert (plan["flops"], plan["flops_ratio"]) == (result["flops"], result["flops_ratio"])


def test_its_run_gives_its_tensors_and_no_vectors(whole: Path) -> None:
    run, tensors = open_run(whole), load_file(whole / "prompt.safetensors")
    learned = run.learned()
    assert sorted(learned) == sorted(tensors)
    assert all(torch.equal(learned[name], tensors[name]) for name in tensors)
    with pytest.raises(UserError, match="holds a late prompt, which has no vectors to put before the input"):
        run.prompt()


@pytest.mark.trains
def test_another_generator_learns_another_prompt_alone_on_the_full_model(
    cli: Cli, quick: list[str], tmp_path: Path
) -> None:
    """The negative control of the equalities above, and the loss falls."""
    words = [*LATE, "schedule=pt", "prompt.generator=mppg", "prompt.layer=2", "optim.lr=0.01"]
    assert cli("train", *quick, *words).status == 0
    found = [row["loss"] for row in losses(tmp_path / "run")]
    assert sum(found[-4:]) < sum(found[:4])
    moved, start = load_file(tmp_path / "run/prompt.safetensors"), open_run(tmp_path / "run").config
    before = drawn(Late(start.prompt).shapes(32), start.seed)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in moved.items())


def test_it_is_scored_asked_and_reported(cli: Cli, whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "copy"))
    result = json.loads((run / "result.json").read_text())
    scored = json.loads(cli("eval", f"run={run}", "--json").out)
    assert scored["metrics"] == result["metrics"]
    of_stage = json.loads(cli("eval", f"run={run}", "stage=2", "--json").out)
    assert of_stage["metrics"]["accuracy"] == result["stages"][1]["score"]
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    asked = cli("predict", f"run={run}", f"text={lines[0]['input']}", "--json")
    assert asked.status == 0, asked.err
    assert lines[0]["output"] in asked.out
    assert cli("report", str(run)).status == 0


@pytest.mark.parametrize("form", ["npy", "peft"])
def test_what_has_no_late_prompts_is_no_format_for_one(cli: Cli, whole: Path, form: str) -> None:
    done = cli("export", f"run={whole}", f"--to={form}")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "to=fpt writes it as fpt reads it" in done.err


def test_exported_it_answers_as_in_its_run(
    cli: Cli, whole: Path, checkpoint: Path, boolq: Path, tmp_path: Path
) -> None:
    """The best prompt on the whole model, and a stage's on the model that was written beside it."""
    for number, model in ((None, checkpoint), (2, tmp_path / "hf")):
        form = "fpt" if number is None else "hf"
        stage = [] if number is None else [f"stage={number}"]
        written = cli("export", f"run={whole}", f"--to={form}", f"output={tmp_path / form}", *stage)
        assert written.status == 0, written.err
        words = [f"prompt.file={tmp_path / form / 'prompt.safetensors'}", f"model={model}", f"task.data={boolq}"]
        output = f"output={tmp_path / form}.jsonl"
        scored = cli("eval", *words, "task=boolq", output)
        assert scored.status == 0, scored.err
        cli("eval", f"run={whole}", *stage, f"output={tmp_path / 'run.jsonl'}")
        assert (tmp_path / f"{form}.jsonl").read_bytes() == (tmp_path / "run.jsonl").read_bytes()
        card = (tmp_path / form / "README.md").read_text()
        assert "a late prompt for" in card
        assert "5 vectors of 32 numbers, made from each example's states there" in card
        assert f"after block {3 if number is None else 2} of" in card
        assert "npg, 1,704 parameters" in card
        assert "fpt predict prompt.file=prompt.safetensors" in card
    assert (tmp_path / "fpt.jsonl").read_bytes() != (tmp_path / "hf.jsonl").read_bytes()


def test_training_goes_on_from_its_file(cli: Cli, quick: list[str], whole: Path, tmp_path: Path) -> None:
    words = [*quick, *LATE, "schedule=pt", "prompt.init=file", "optim.lr=1e-9", "optim.weight_decay=0"]
    for source in (whole, whole / "prompt.safetensors"):
        assert cli("train", *words, f"prompt.file={source}", "resume=never").status == 0
        found, began = (load_file(folder / "prompt.safetensors") for folder in (tmp_path / "run", whole))
        assert all(torch.allclose(tensor, began[name], atol=1e-6) for name, tensor in found.items())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "holds a late prompt, and this run has a soft one; give prompt=late"),
        (
            ["prompt=late", "prompt.generator=mppg"],
            "holds a late prompt with prompt.generator=npg prompt.length=5 prompt.bottleneck=8 prompt.pool=first for"
            " d_model=32; this run has prompt.generator=mppg prompt.length=5 prompt.bottleneck=128 and d_model=32",
        ),
        (["prompt=late", "prompt.bottleneck=8", "prompt.pool=mean"], "prompt.pool=mean and d_model=32"),
        (["prompt=late", "prompt.generator=none"], "this run has prompt.generator=none prompt.length=5 and d_model=32"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(
    cli: Cli, quick: list[str], whole: Path, words: list[str], error: str
) -> None:
    done = cli("train", *quick, *words, "prompt.init=file", f"prompt.file={whole / 'prompt.safetensors'}")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert error in done.err


@pytest.mark.parametrize(
    "changes", [{"layer": -1}, {"layer": 0.5}, {"generator": "appg"}, {"generator": 7}, {"length": 6}, {"pool": None}]
)
def test_a_description_that_does_not_hold_is_refused(whole: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    file = whole / "prompt.safetensors"
    with safe_open(file, framework="pt") as handle:
        about = json.loads(handle.metadata()["fpt"]) | changes
    made = tmp_path / "made.safetensors"
    made.write_bytes(dump_prompt(load_file(file), **{key: value for key, value in about.items() if value is not None}))
    with pytest.raises(UserError, match="is not a late prompt as fpt writes it"):
        open_prompt(made)


def test_a_soft_prompt_is_no_start_for_a_late_one(cli: Cli, quick: list[str], finished: Path) -> None:
    done = cli("train", *quick, *LATE, "prompt.init=file", f"prompt.file={finished}")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "holds a soft prompt, and this run has a late one; give prompt=soft" in done.err
    done = cli("train", *quick, *LATE, "prompt.init=vocab")
    assert "prompt.init=vocab: is for prompt=soft; a late prompt takes auto or uniform or normal or file" in done.err


def test_more_blocks_than_there_are_is_an_error_before_any_weight(cli: Cli, quick: list[str]) -> None:
    done = cli("train", *quick, *LATE, "prompt.layer=7")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "prompt.layer=7: the model reads with 6 blocks; give 0 to 6" in done.err


@pytest.mark.parametrize("generator", ["npg", "appg", "mppg", "none"])
@pytest.mark.parametrize("below", [0, 2, 5])
def test_a_forward_pass_is_priced_as_torch_counts_it(below: int, generator: str) -> None:
    config, shape = PRICED, Shape(Stack(5, 96), Stack(5, 96))
    body = t5.skeleton(config, shape).to_empty(device="cpu")
    body.set_attn_implementation("eager")  # the counter does not see into the CPU's fused attention
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    prompt = PromptConfig(kind="late", generator=generator, length=5, bottleneck=16)
    model = prompted_model(body, Late(prompt).build(drawn(Late(prompt).shapes(64), 0), below)).requires_grad_(False)
    batch = Batch(torch.ones(3, 32, dtype=torch.long), torch.ones(3, 32, dtype=torch.long), torch.full((3, 9), 8))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch)
    priced = 3 * Price(config).forward(shape, source=32 + prompt.length, target=9, below=below, prompt=prompt)
    assert priced == counter.get_total_flops()


def test_neurons_below_are_scored_without_the_prompt(checkpoint: Path) -> None:
    def scores(position: int, batch_size: int) -> torch.Tensor:
        model = prompted(checkpoint, late(position, generator="none"))
        found = importance(model, DATA, batch_size, ON_CPU, lambda batches, _: batches)
        return found["encoder"]

    inside, outside = scores(3, 4), scores(6, 4)
    assert torch.equal(inside[:3], outside[:3])
    assert not torch.allclose(inside[3:], outside[3:])
    torch.testing.assert_close(inside, scores(3, 1), rtol=1e-4, atol=1e-5)


def test_an_update_is_priced_without_a_way_back_below_the_prompt() -> None:
    """Two passes of what is above, one of what is below; and of the generator's two layers two and three."""
    shape, price = Shape(Stack(5, 96), Stack(5, 96)), Price(PRICED)
    sizes = {"source": 37, "target": 9}
    prompt = PromptConfig(kind="late", generator="npg", length=5, bottleneck=16)
    plain = replace(prompt, generator="none")
    alone = price.forward(shape, **sizes, prompt=plain, below=2) - price.forward(
        Shape(Stack(3, 96), Stack(5, 96)), **sizes, prompt=plain
    )
    update = price.update(shape, **sizes, prompt=plain, below=2)
    assert update == 2 * price.forward(shape, **sizes, prompt=plain, below=2) - alone
    generator = 2 * 64 * 16
    assert price.update(shape, **sizes, prompt=prompt, below=2) == update + 2 * generator + 3 * 5 * generator
