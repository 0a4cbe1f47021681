"""A run's folder, harmed in every way: a use is right or refuses in one line, and touches nothing else."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fpt.config import compose
from fpt.config.run_config import RunConfig
from fpt.errors import UserError
from fpt.report.page import open_runs
from fpt.runs.folder import LEDGER, METRICS
from fpt.runs.run import open_run
from stages import schedule, setup
from stages.resolve import for_training
from stages.using.learned import from_run
from tests.conftest import Outcome, copied_run, quick_words, rewritten

Cli = Callable[..., Outcome]
# A file of every kind, and what reads it: the run's report, its prompt, or the run that goes on.
READERS = {
    LEDGER: "report",
    METRICS: "report",
    "config.yaml": "run",
    "result.json": "prompt",
    "predictions.jsonl": "report",
    "{stage}/selection.safetensors": "prompt",
    "{stage}/state.safetensors": "run",
    "{stage}": "run",
}
# What could be rewritten together with its hash, so that nothing but its form can be found wrong.
FORGERIES = {
    **{name: READERS[name] for name in ("config.yaml", "result.json", "predictions.jsonl")},
    **{f"{{stage}}/{name}": "report" for name in ("stage.json", "updates.json", "state.safetensors")},
    **{f"{{stage}}/{name}": "prompt" for name in ("selection.safetensors", "prompt.safetensors")},
    "inputs.json": "prompt",
    "plan.json": "report",
    "measured.json": "report",
}


def a_folder_in_its_place(file: Path) -> None:
    file.unlink()
    (file / "precious").mkdir(parents=True)


def a_file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("precious")


def a_link_elsewhere(file: Path) -> None:
    """To the same bytes, which a careless reader takes and a careless writer or remover harms."""
    outside = file.parents[len(file.parts) - file.parts.index("place") - 2] / "outside"
    shutil.move(file, outside)
    file.symlink_to(outside)


HARMS: dict[str, Callable[[Path], object]] = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-3]),
    "flipped": lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
    "emptied": lambda file: file.write_bytes(b""),
    "gone": lambda file: file.unlink(),
    "a folder": a_folder_in_its_place,
    "a link": a_link_elsewhere,
}
FORGED = {"a list": b"[]", "another object": b'{"a": null}', "a number": b"3", "nothing": b"", "junk": b"\xff\x00"}


def harmed(finished: Path, place: Path, name: str, harm: str) -> None:
    """In `place` a run with one of its files harmed, or forged, its hash too."""
    run = copied_run(finished, place / "run")
    if harm in FORGED:
        rewritten(run, name, FORGED[harm])
    elif "." in name:
        HARMS[harm](run / name)
    elif harm in ("a folder", "a link"):
        {"a folder": a_file_in_its_place, "a link": a_link_elsewhere}[harm](run / name)


def contents(place: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in (place, *place.rglob("*")) if file.is_file()}


def refusal(use: Callable[[], object], what: str) -> str:
    try:
        use()
    except UserError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(what) from error
    return ""


@pytest.fixture(scope="module")
def config(checkpoint: Path, boolq: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    place = tmp_path_factory.mktemp("harmed") / "place"
    return for_training(compose.load([*quick_words(checkpoint, boolq, place / "run")]))


@pytest.mark.parametrize("harm", [*HARMS, *FORGED])
def test_a_harmed_run_is_right_or_refused_in_one_line(finished: Path, config: RunConfig, harm: str) -> None:
    run, stages = config.folder, schedule.of(config)
    stage = f"stages/{stages.stages[1].name}"

    def goes_on(resumed: str) -> None:
        with setup.opened_folder(replace(config, resume=resumed)) as folder:
            setup.saved_states(folder, stages)

    uses = {
        "report": lambda: open_runs([str(run)]),
        "prompt": lambda: from_run(open_run(run), 2),
        "run": lambda: goes_on("auto"),
        "start over": lambda: goes_on("never"),
    }
    for name, reader in (FORGERIES if harm in FORGED else READERS).items():
        harmed(finished, run.parent, name.format(stage=stage), harm)
        outside = contents(run.parent / "outside")
        for use in (reader, "run", "start over") if harm in HARMS else (reader,):
            said = refusal(uses[use], f"{name}, {harm}")
            assert "\n" not in said, (name, harm)
            assert said.isprintable(), (name, harm)
            assert use != "run" or harm == "a link" or not said or "resume=never" in said, (name, said)
        assert contents(run.parent / "outside") == outside, (name, harm)
        if harm in HARMS:
            assert not said, (name, harm, said)
            precious = run.with_name("run.old-1") / name.format(stage=stage) / "precious"
            assert harm != "a folder" or "." not in name or precious.is_dir()
        shutil.rmtree(run.parent)


@pytest.mark.parametrize("verb", ["train", "eval", "predict", "export", "report"])
def test_a_result_that_is_no_result_is_one_line(
    cli: Cli, finished: Path, quick: list[str], tmp_path: Path, verb: str
) -> None:
    run = copied_run(finished, tmp_path / "run")
    rewritten(run, "result.json", b"[]")
    words = {"train": quick, "report": [str(run)], "predict": [f"run={run}", "text=x"], "eval": [f"run={run}"]}
    done = cli(verb, *words.get(verb, [f"run={run}", "to=npy"]))
    assert done.status == 2
    assert "result.json: is not what fpt writes" in done.err.strip().splitlines()[-1]
    assert "Traceback" not in done.err
