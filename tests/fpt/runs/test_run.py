"""A run's folder, harmed in every way: a use is right, refuses in one line, or repairs, and touches nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fpt.config import compose
from fpt.errors import UserError
from fpt.report import open_runs
from fpt.runs.folder import LEDGER, METRICS
from fpt.runs.run import open_run
from stages import resume, schedule
from stages.using.learned import from_run
from tests.conftest import Outcome, copied_run, rewritten

Cli = Callable[..., Outcome]
FILES = [LEDGER, METRICS, "config.yaml", "inputs.json", "plan.json", "measured.json", "scores.safetensors"]
FILES += ["result.json", "predictions.jsonl", "prompt.safetensors", "{stage}/stage.json", "{stage}/prompt.safetensors"]
FILES += ["{stage}/selection.safetensors", "{stage}/state.safetensors", "{stage}/updates.json", "{stage}"]


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


def harmed(finished: Path, place: Path, name: str, harm: str) -> Path:
    """A run with one of its files harmed, or forged, its hash too."""
    run = copied_run(finished, place / "run")
    if harm in FORGED:
        rewritten(run, name, FORGED[harm])
    elif "." in name:
        HARMS[harm](run / name)
    elif harm in ("a folder", "a link"):
        {"a folder": a_file_in_its_place, "a link": a_link_elsewhere}[harm](run / name)
    return run


def contents(place: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in (place, *place.rglob("*")) if file.is_file()}


def refusal(use: Callable[[Path], object], run: Path, what: str) -> str:
    try:
        use(run)
    except UserError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(what) from error
    return ""


@pytest.mark.parametrize("harm", [*HARMS, *FORGED])
def test_a_harmed_run_is_right_refused_in_one_line_or_repaired(
    finished: Path, quick: list[str], tmp_path: Path, harm: str
) -> None:
    stage = f"stages/{open_run(finished).stages[1].name}"
    told = [word for word in quick if not word.startswith("run.dir=")]
    place = tmp_path / "place"
    configs = [compose.load([*told, f"run.dir={place}/run", f"resume={how}"]) for how in ("auto", "repair")]
    stages = schedule.of(configs[0])

    def goes_on(number: int) -> None:
        with resume.opened_folder(configs[number], stages) as folder:
            resume.last_state(folder, stages)

    uses = [lambda run: open_runs([str(run)]), lambda run: from_run(open_run(run), 2), lambda _: goes_on(0)]
    for name in FILES:
        if harm in FORGED and (name in (LEDGER, METRICS) or "." not in name):
            continue
        run = harmed(finished, place, name.format(stage=stage), harm)
        outside = contents(place / "outside")
        for use in (*uses, lambda _: goes_on(1), lambda _: goes_on(0)):
            said = refusal(use, run, f"{name}, {harm}")
            assert "\n" not in said, (name, harm)
            assert said.isprintable(), (name, harm)
        assert contents(place / "outside") == outside, (name, harm)
        is_mended = harm in ("cut", "flipped", "emptied", "gone") and name != LEDGER
        assert not (is_mended and said), (name, harm, said)
        assert harm != "a folder" or "." not in name or (run / name.format(stage=stage) / "precious").is_dir()
        shutil.rmtree(place)


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
