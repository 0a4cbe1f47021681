"""Small random checkpoints of every family, saved by transformers, and the command line called in this process."""

import gc
import hashlib
import json
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from huggingface_hub import constants
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from fpt.__main__ import main
from fpt.backbones import tiny
from fpt.backbones.backbone import Backbone, open_backbone
from fpt.config import compose, keys
from fpt.config.schema import EngineConfig, ModelConfig
from fpt.devices.engine import Engine
from fpt.runs import metrics
from fpt.runs.folder import LEDGER, METRICS, STATE
from fpt.runs.metrics import MetricsLine
from fpt.runs.progress import quiet_libraries
from fpt.runs.shared_folder import SharedFolder


def on_cpu(**settings: Any) -> Engine:
    return Engine(
        EngineConfig(**{"name": "torch", "device": "cpu", "dtype": "float32", **settings}), torch.device("cpu")
    )


ON_CPU = on_cpu()
VOCABULARY = json.loads((tiny.FOLDER / "config.json").read_text())["vocab_size"]
SMALL = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "vocab_size": VOCABULARY, "decoder_start_token_id": 0}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any], bool]] = {
    "T5 1.0": (T5Config, T5ForConditionalGeneration, {"num_layers": 4}, False),
    "T5 1.1": (T5Config, T5ForConditionalGeneration, {"num_layers": 6, **GATED}, True),
    "Flan-T5": (T5Config, T5ForConditionalGeneration, {"num_layers": 3, "n_positions": 512, **GATED}, True),
    "mT5": (MT5Config, MT5ForConditionalGeneration, {"num_layers": 4}, True),
    "ByT5": (T5Config, T5ForConditionalGeneration, {"num_layers": 6, "num_decoder_layers": 2, **GATED}, True),
    "deep decoder": (T5Config, T5ForConditionalGeneration, {"num_layers": 2, "num_decoder_layers": 4, **GATED}, True),
}


PROCESSES = 2.0  # seconds of the processor that those of a fast test may take; importing torch takes as long
LONG = (  # files of half a minute or so, begun first
    "test_engines.py",
    "test_run.py",
    "test_launch.py",
    "test_resuming.py",
    "test_loop.py",
    "test_project.py",
    "test_report.py",
    "test_every_family.py",
    "test_gathering.py",
    "test_docs.py",
)
FORGOTTEN = "in a test that is not marked `trains` (see tests/conftest.py)"


def pytest_configure() -> None:
    # Models this small gain nothing from a second thread, and tests run side by side.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    quiet_libraries()


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> Iterator[None]:
    """Hydra composes the same words once in a session, as nobody edits conf/ meanwhile; later ones get a copy."""
    compose_anew, conf, known = compose._compose, keys.conf_dir(), dict[tuple[str, ...], dict[str, Any]]()

    def compose_once(words: list[str]) -> dict[str, Any]:
        if compose.__dict__["conf_dir"]() != conf:
            return compose_anew(words)
        if tuple(words) not in known:
            known[tuple(words)] = compose_anew(words)
        return deepcopy(known[tuple(words)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "_compose", compose_once)
        yield


@pytest.fixture(scope="session")
def trains() -> None:
    """For fixtures that train, or start processes that import torch: tests that use one are marked `trains`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what trains, and put the files of long tests first, so that two workers end together."""
    for item in items:
        if "trains" in getattr(item, "fixturenames", ()):
            item.add_marker("trains")
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    gc.freeze()  # what was imported for the tests is not looked through again and again


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """No test of the fast tier trains: one that begins to without the mark fails."""
    with pytest.MonkeyPatch.context() as patch:
        if not any(item.get_closest_marker(name) for name in ("trains", "slow")):
            patch.setattr(metrics, "open_tracker", _refuse_to_train)
        return (yield)


def _refuse_to_train(*_: Any) -> None:
    raise AssertionError(f"a run trains {FORGOTTEN}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """No test of the fast tier starts processes that import torch."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = yield
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    is_marked = any(item.get_closest_marker(name) for name in ("trains", "dear", "slow"))
    assert seconds < PROCESSES or is_marked, f"{seconds} seconds of processes {FORGOTTEN}"
    return result


def save_checkpoint(
    folder: Path, family: str, *, sizes: dict[str, int] | None = None, vocab_size: int = VOCABULARY, **save: Any
) -> Path:
    """A random model of a family, with the embedded model's tokenizer beside it."""
    kind, cls, values, untied = FAMILIES[family]
    values = {**SMALL, **values, **(sizes or {}), "vocab_size": vocab_size}
    torch.manual_seed(7)
    model = cls(kind(**values, dropout_rate=0.1))
    if untied:
        model.lm_head = torch.nn.Linear(values["d_model"], vocab_size, bias=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # a bias table and norms that matter
            if "relative_attention_bias" in name or "layer_norm" in name:
                parameter.copy_(torch.randn_like(parameter) + 1)
    model.save_pretrained(folder, **save)
    if untied:
        # As the original checkpoints say it; transformers 5 writes tie_word_embeddings=true for every T5.
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": False}))
    for name in ("spiece.model", "tokenizer_config.json"):
        shutil.copy(tiny.FOLDER / name, folder / name)
    return folder


def open_folder(folder: Path) -> Backbone:
    return open_backbone(ModelConfig(name=folder.name, weights=str(folder)))


def open_downloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """The folder's model as the Hub's own cache has it, without a network; .bin files are read from nowhere else."""
    repository = folder.parent / "hub" / f"models--me--{folder.name}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text("0123abc")
    (repository / "snapshots").mkdir(exist_ok=True)
    if not (repository / "snapshots" / "0123abc").exists():
        (repository / "snapshots" / "0123abc").symlink_to(folder, target_is_directory=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(repository.parent))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return open_backbone(ModelConfig(name=folder.name, weights=f"me/{folder.name}"))


def boolq_lines(count: int, start: int = 0) -> str:
    """Run of which a random model can learn the label: it is told by the passage's first word."""
    rows = []
    for index in range(start, start + count):
        label = index % 2 == 0
        passage = ("the lamp is red . " if label else "a stone is old . ") * (1 + index % 5)
        rows.append({"question": f"is it number {index}", "passage": passage, "idx": index, "label": label})
    return "\n".join(map(json.dumps, rows)) + "\n"


@dataclass
class Outcome:
    status: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`cli("train", "seed=1")` is `fpt train seed=1` in this process."""

    def call(*words: str) -> Outcome:
        capsys.readouterr()
        status = main(list(words))
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of a session have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """The folder `place`, made by the worker that asks for it first; others wait, and nobody changes it."""
    with FileLock(f"{place}.lock"):
        made = Path(f"{place}.made")
        if not made.exists():
            make(place)
            made.touch()
    return place


@pytest.fixture(scope="session")
def checkpoint(shared: Path) -> Path:
    """A random T5 1.1 of 6+6 blocks and 48 neurons."""
    return made_once(shared / "small", lambda folder: save_checkpoint(folder, "T5 1.1"))


@pytest.fixture(scope="session")
def boolq(shared: Path) -> Path:
    """A folder with BoolQ files: 48 training and 24 validation examples."""

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "train.jsonl").write_text(boolq_lines(48))
        (folder / "val.jsonl").write_text(boolq_lines(24, 1000))

    return made_once(shared / "boolq", write)


class Stop(BaseException):
    """Ends a run at once, as a kill would, wherever it is raised."""


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Within, the system refuses longer files, as it does where a quota or a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def stopped_after(update: int) -> Iterator[None]:
    """Within, a run ends after that update's metrics are written, by `Stop`, which is caught."""
    log = SharedFolder.log

    def log_and_stop(folder: SharedFolder, line: MetricsLine) -> None:
        log(folder, line)
        if line["update"] == update and "loss" in line:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedFolder, "log", log_and_stop)
        with pytest.raises(Stop):
            yield


def quick_words(checkpoint: Path, boolq: Path, folder: Path) -> list[str]:
    """Overrides for a run of a second or two: 20 updates in 4 stages on the random model."""
    return [
        f"model={checkpoint}",
        f"task.data={boolq}",
        f"run.dir={folder}",
        "train.updates=20",
        "train.batch_size=4",
        "train.eval_every=5",
        "train.eval_partial=true",
        "train.save_every=1",
        "prompt.length=5",
        "schedule.importance_examples=10",
    ]


@pytest.fixture
def quick(checkpoint: Path, boolq: Path, tmp_path: Path) -> list[str]:
    """`quick_words` with a run folder of the test's own."""
    return quick_words(checkpoint, boolq, tmp_path / "run")


@pytest.fixture(scope="session")
def finished(
    trains: None, checkpoint: Path, boolq: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a finished run on the random model; tests only read it, or write beside its records."""

    def train(folder: Path) -> None:
        assert main(["train", *quick_words(checkpoint, boolq, folder)]) == 0

    return copied_run(made_once(shared / "run", train), tmp_path_factory.mktemp("finished") / "run")


def copied_run(run: Path, to: Path) -> Path:
    """The run's records, in another folder."""
    return Path(shutil.copytree(run, to, ignore=shutil.ignore_patterns("evals", "export", "report*", "tensorboard")))


def _remarked(state: bytes, metrics: bytes) -> bytes:
    """The state as if it had seen this metrics.jsonl."""
    end = 8 + int.from_bytes(state[:8], "little")
    header = json.loads(state[8:end])
    described = json.loads(header["__metadata__"]["state"])
    described["metrics"] = {"bytes": len(metrics), "sha256": hashlib.sha256(metrics).hexdigest()}
    header["__metadata__"]["state"] = json.dumps(described)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + state[end:]


def rewritten(run: Path, name: str = "config.yaml", data: str | bytes | None = None, /, **changes: str) -> None:
    """The run as if it had written other bytes, or its configuration had said otherwise."""
    file = run / name
    if data is None:
        data = file.read_text()
        for before, after in changes.items():
            data = re.sub(rf"^  {before}: .*$", f"  {before}: {after}", data, count=1, flags=re.MULTILINE)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    if name == METRICS:
        for state in run.glob(f"stages/*/{STATE}"):
            rewritten(run, str(state.relative_to(run)), _remarked(state.read_bytes(), file.read_bytes()))
    ledger = json.loads((run / LEDGER).read_text())
    if name in ledger:
        ledger[name] = [hashlib.sha256(file.read_bytes()).hexdigest()]
        (run / LEDGER).write_text(json.dumps(ledger))
