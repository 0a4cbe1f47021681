"""One prompt, whatever computes it: 1, 2 or 4 processes, torch or DeepSpeed at any ZeRO stage, on the CPU over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fpt.__main__ import main
from tests.conftest import quick_words, save_checkpoint

ALL_RUNS = """
import json, sys
from fpt.runs.progress import Progress, quiet_libraries
quiet_libraries()
from fpt.config import compose
from fpt.devices import distributed
from fpt.tasks.opening import open_task
from fpt.devices.engine import open_device
from stages import schedule
from stages.run import run_joined
runs = [compose.load(words) for words in json.loads(sys.argv[1])]
with distributed.joined(runs[0].engine, open_device(runs[0].engine)):
    for config in runs:
        run_joined(config, schedule.of(config), lambda: open_task(config), Progress())
"""
TWO_STAGES = "schedule.stages=[{depth: 0.5, width: 0.5, share: 0.4}, {share: 0.6}]"
# From ±1/sqrt(d_model) steps this long double any rounding at every update, so the prompt starts from embeddings.
EXACT = ["optim.lr=0.01", "prompt.init=vocab", "train.eval_every=20", "train.save_every=20", TWO_STAGES]
ENGINES = {
    "torch": ["engine=torch"],
    "ZeRO 0": ["engine=deepspeed", "engine.zero_stage=0"],
    "ZeRO 1": ["engine=deepspeed", "engine.zero_stage=1"],
    "ZeRO 2": ["engine=deepspeed", "engine.zero_stage=2"],
    "ZeRO 3": ["engine=deepspeed"],
    "ZeRO 3, offloaded": ["engine=deepspeed", "engine.offload=cpu"],
    "ZeRO 3, checkpointed micro-batches": [
        "engine=deepspeed",
        "train.micro_batch=1",
        "train.activation_checkpointing=true",
    ],
}
OF_FOUR = {name: ENGINES[name] for name in ("torch", "ZeRO 3")}
LATE = {
    "torch, late in memory": ["engine=torch", "prompt.cache=memory"],
    "ZeRO 3, late on disk": ["engine=deepspeed", "prompt.cache=disk"],
}


def in_processes(number: int, script: str, *arguments: str) -> None:
    """Run a script in so many processes, started by torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    # What is freed goes back to the system at once, so that its memory tells what is held.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [*torchrun, "--no-python", sys.executable, "-c", script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 3+3 blocks: with ZeRO-3 an update costs as much as it has layers."""
    return save_checkpoint(tmp_path_factory.mktemp("shallow") / "model", "Flan-T5")


def words(checkpoint: Path, boolq: Path, folder: Path, *more: str) -> list[str]:
    return [*quick_words(checkpoint, boolq, folder), *EXACT, *more]


def late_words(checkpoint: Path, boolq: Path, folder: Path, *more: str) -> list[str]:
    late = ["prompt=late", "prompt.generator=mppg", "train.eval_every=20", TWO_STAGES]
    return [*quick_words(checkpoint, boolq, folder), *late, *more]


@pytest.fixture(scope="module")
def alone(shallow: Path, boolq: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in this process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert main(["train", *words(shallow, boolq, folder, "engine=torch")]) == 0
    return folder


def together(
    number: int, engines: dict[str, list[str]], late: dict[str, list[str]], checkpoint: Path, boolq: Path, place: Path
) -> dict[str, Path]:
    """Run folders of so many processes, by the engine; neurons are scored anew in each."""
    folders = {name: place / f"caches-{index}" / "run" for index, name in enumerate((*engines, *late))}
    runs = [words(checkpoint, boolq, folders[name], *engine) for name, engine in engines.items()]
    runs += [late_words(checkpoint, boolq, folders[name], *more) for name, more in late.items()]
    in_processes(number, ALL_RUNS, json.dumps(runs))
    return folders


@pytest.fixture(scope="module")
def of_two(shallow: Path, boolq: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return together(2, ENGINES, LATE, shallow, boolq, tmp_path_factory.mktemp("of-2"))


@pytest.fixture(scope="module")
def of_four(shallow: Path, boolq: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return together(4, OF_FOUR, {}, shallow, boolq, tmp_path_factory.mktemp("of-4"))


FOUR = [pytest.param("of_four", name, marks=pytest.mark.slow) for name in OF_FOUR]


@pytest.mark.parametrize(("number", "name"), [*(("of_two", name) for name in ENGINES), *FOUR])
def test_the_prompt_is_that_of_one_process(request: pytest.FixtureRequest, alone: Path, number: str, name: str) -> None:
    """To 1e-5, over 20 updates of Adafactor in two stages; neurons were scored anew."""
    folder = request.getfixturevalue(number)[name]
    found, wanted = (load_file(run / "prompt.safetensors")["prompt"] for run in (folder, alone))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    for stage in (alone / "stages").iterdir():
        ours, theirs = (load_file(run / "stages" / stage.name / "selection.safetensors") for run in (folder, alone))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(("number", "name"), [("of_two", "torch"), ("of_two", "ZeRO 3"), *FOUR])
def test_each_example_is_predicted_once_and_as_by_one_process(
    request: pytest.FixtureRequest, alone: Path, number: str, name: str
) -> None:
    """24 examples in one batch: all processes but one have none."""
    found = request.getfixturevalue(number)[name] / "predictions.jsonl"
    assert found.read_text() == (alone / "predictions.jsonl").read_text()


def test_a_late_prompt_is_that_of_one_process_too(
    shallow: Path, boolq: Path, of_two: dict[str, Path], tmp_path: Path
) -> None:
    """With the states below it computed anew by one process, and shared out and kept by two."""
    assert main(["train", *late_words(shallow, boolq, tmp_path / "run"), "prompt.cache=off"]) == 0
    wanted = load_file(tmp_path / "run/prompt.safetensors")
    assert len(wanted) == 4
    for name, where in zip(LATE, ("memory", "disk"), strict=True):
        states = json.loads((of_two[name] / "plan.json").read_text())["states"]
        assert (states["where"], [stage["does"] for stage in states["stages"]]) == (where, ["compute"] * 2)
        assert len(list(of_two[name].parent.glob("cache/states/*.npy"))) == 2 * (where == "disk")
        found = load_file(of_two[name] / "prompt.safetensors")
        for key, tensor in wanted.items():
            torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_papers_learning_rate_scores_the_same_on_every_engine(tmp_path: Path) -> None:
    """At 0.3 rounding grows into other prompts; they are worth the same, to 4 of 200 answers."""
    more = ["task=boolq", "schedule=pt", "train.updates=40", "train.eval_every=40", "task.valid_examples=200"]
    engines = {
        "1 torch": (1, ["engine=torch"]),
        "2 torch": (2, ["engine=torch"]),
        "2 ZeRO 3": (2, ["engine=deepspeed"]),
    }
    scores = {}
    for name, (number, engine) in engines.items():
        folder = tmp_path / name.replace(" ", "-")
        in_processes(number, ALL_RUNS, json.dumps([[*more, *engine, f"run.dir={folder}", f"cache_dir={tmp_path}"]]))
        scores[name] = json.loads((folder / "result.json").read_text())["metric"]["value"]
    assert min(scores.values()) > 80, scores
    assert max(scores.values()) - min(scores.values()) <= 2, scores


def test_only_one_process_writes_the_records(alone: Path, of_two: dict[str, Path]) -> None:
    def kinds(folder: Path) -> list[tuple[int, bool]]:
        rows: list[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [(row["update"], "loss" in row) for row in rows]

    for folder in of_two.values():
        assert kinds(folder) == kinds(alone)


MEMORY = """
import gc, json, sys, threading, time
from pathlib import Path
from fpt.runs.progress import Progress, quiet_libraries
quiet_libraries()
import torch
from fpt.config import compose
from fpt.devices import distributed
from fpt.config.schema import OptimConfig
from fpt.devices.engine import open_device
from fpt.training.loop import step
from fpt.training.optimizer import make
from fpt.tasks.opening import open_task
from stages import prepare, schedule, selection

def anonymous():  # bytes of this process's own; pages of the weight files are not
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Anonymous:")))

def highest(call):
    gc.collect()
    peak, done = [anonymous()], threading.Event()
    def with_bar():
        while not done.is_set():
            peak.append(anonymous())
            time.sleep(0.005)
    watcher = threading.Thread(target=with_bar)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return max(peak) - peak[0]

config = compose.load(json.loads(sys.argv[1]))
with distributed.joined(config.engine, open_device(config.engine)):
    materials = prepare.gather(config, schedule.of(config), open_task(config), Progress())
    prompt, found = materials.initial_prompt(), {"after": []}
    sizes = [schedule.of(config).stages[number].shape for number in (0, 1, 2, 3)]
    def train(shape, updates):
        chosen = selection.choose(shape, materials.backbone.shape, scores)
        with materials.model(chosen, prompt) as model:
            optimizer = make([model.prompt.vectors], OptimConfig())
            for update in range(updates):
                step(model, optimizer, materials.train, [update, update + 1], None, OptimConfig(), device)
    device = materials.engine.device
    scores = {name: torch.rand(stack.blocks, stack.neurons, generator=torch.Generator().manual_seed(0))
              for name in ("encoder", "decoder") for stack in [materials.backbone.shape.stack(name)]}
    train(sizes[-1], 1)  # what the libraries allocate once
    found["peak"] = highest(lambda: train(sizes[-1], 2))
    for number in range(10):
        train(sizes[number % 4], 1)
        gc.collect()
        found["after"].append(anonymous())
    if distributed.is_main():
        Path(sys.argv[2]).write_text(json.dumps(found))
"""


def test_no_process_holds_more_than_its_share_and_engines_leave_nothing_behind(boolq: Path, tmp_path: Path) -> None:
    """The rank that reads the weights included; over ten models memory stays as it is."""
    checkpoint = save_checkpoint(tmp_path / "wide", "T5 1.1", sizes={"d_model": 256, "d_ff": 2048, "num_layers": 8})
    weights = (checkpoint / "model.safetensors").stat().st_size
    assert weights > 90e6
    run = [*quick_words(checkpoint, boolq, tmp_path / "run"), "engine=deepspeed", "schedule.reduce=both"]
    in_processes(2, MEMORY, json.dumps(run), str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["peak"] < 0.75 * weights
    assert max(found["after"][4:]) - min(found["after"][4:]) < 0.05 * weights
