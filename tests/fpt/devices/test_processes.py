"""How many processes a run has, whoever starts them."""

import pytest

from fpt.config.compose import load
from fpt.devices.processes import Counts, check_started, counted
from fpt.errors import UserError


def start(monkeypatch: pytest.MonkeyPatch, number: int, here: int, name: str = "LOCAL_WORLD_SIZE") -> None:
    """Be one process of as many as a launcher has started."""
    told = {"WORLD_SIZE": number, name: here, "RANK": 0, "LOCAL_RANK": 0, "MASTER_ADDR": "here", "MASTER_PORT": 29500}
    for key, value in told.items():
        monkeypatch.setenv(key, str(value))


def test_alone_they_are_as_typed() -> None:
    assert counted(load([]).engine) == Counts(1, 1)
    assert counted(load(["engine.processes=8"]).engine) == Counts(8, 8)


@pytest.mark.parametrize("name", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE"])
def test_of_a_launcher_they_are_as_started(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """LOCAL_SIZE is DeepSpeed's."""
    start(monkeypatch, 16, 8, name)
    assert counted(load([]).engine) == Counts(16, 8)
    check_started(load([]))


def test_of_our_own_launcher_they_are_both(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, 8, 8)
    config = load(["engine.processes=8"])
    assert counted(config.engine) == Counts(8, 8)
    check_started(config)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["engine.processes=4"], "engine.processes=4: the launcher starts 16 processes, 8 on this machine; leave out"),
        (["train.batch_size=8"], "train.batch_size=8: has fewer examples than the launcher starts processes, 16;"),
        (["engine.device=cuda:1"], "engine.device=cuda:1: is one device, and the launcher starts 8 processes here;"),
    ],
)
def test_what_does_not_go_with_them_is_refused(monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    start(monkeypatch, 16, 8)
    with pytest.raises(UserError) as caught:
        check_started(load(words))
    assert str(caught.value).startswith(said)


def test_half_of_what_a_launcher_tells_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, 16, 8)
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(UserError, match="WORLD_SIZE=16: MASTER_PORT not set"):
        check_started(load([]))
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(UserError, match="WORLD_SIZE=many: expected a whole number"):
        check_started(load([]))
