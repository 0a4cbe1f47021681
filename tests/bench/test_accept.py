"""The card's first hour runs in small where there is no card: every step a line of JSON, an error too."""

import json

import pytest

from bench import accept
from bench.place import Found, Place

CARD_ALONE = {"waits", "cards", "out of memory"}  # on a CPU they say that there is nothing to find
AT_LENGTH = ("updates", "parts", "run")
ELSEWHERE = ("engines", "start and resume")  # what other tests run anyway


@pytest.mark.trains
@pytest.mark.slow
def test_long_steps_run_in_small(capsys: pytest.CaptureFixture[str]) -> None:
    assert accept.main(["--steps", *AT_LENGTH]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["step"] for line in lines} == set(AT_LENGTH)
    parts = [line for line in lines if line["step"] == "parts"]
    assert [round(line["flops_of_whole"], 2) for line in parts] == [1.0, 0.65, 0.37, 0.16]
    assert all(line["seconds_of_whole"] < 0.9 for line in parts[1:])


@pytest.mark.trains
@pytest.mark.slow
def test_a_run_starts_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert accept.main(["--steps", "start and resume"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["same_prompt"]
    assert line["stopped_after"] < 40


@pytest.mark.trains
@pytest.mark.slow
def test_every_step_runs_in_small(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [name for name in accept.STEPS if name not in (*ELSEWHERE, *AT_LENGTH)]
    assert accept.main(["--steps", *steps]) == 0
    lines = {line["step"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert list(lines) == steps
    assert {line["device"] for line in lines.values()} == {"cpu"}
    assert not any("error" in line for line in lines.values())
    assert lines["gradients"]["cosine"] > 0.999
    assert lines["memory"]["planned_bytes"] > 0
    assert {name for name, line in lines.items() if None in line.values() or line.get("forced") is False} >= CARD_ALONE


def test_what_fails_is_a_line_and_the_next_step_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Place) -> Found:
        raise RuntimeError("CUDA error: the card is gone\nand more")

    monkeypatch.setitem(accept.STEPS, "loading", broken)
    assert accept.main(["--steps", "loading", "environment"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["error"] == "RuntimeError: CUDA error: the card is gone"
    assert second["step"] == "environment"


def test_no_step_begins_when_the_time_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert accept.main(["--steps", "loading", "--minutes", "0"]) == 0
    assert json.loads(capsys.readouterr().out) == {"step": "loading", "left_out": "no time"}
