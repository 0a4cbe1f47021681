"""`fpt serve`: it says where it is, answers what was asked before it is stopped, and ends in order."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from fpt.cli import use
from tests.conftest import Outcome
from tests.processes import Command

Cli = Callable[..., Outcome]


def address(service: Command, seconds: float = 240) -> str:
    deadline = time.monotonic() + seconds
    while service.status is None and time.monotonic() < deadline:
        if service.place.with_suffix(".err").exists() and (found := re.search(r" at (http://\S+);", service.said()[1])):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"not there, with status {service.status}: {service.said()}")


def test_it_answers_and_ends_in_order(finished: Path, tmp_path: Path) -> None:
    service = Command(["serve", f"run={finished}", "port=0"], tmp_path / "said")
    url, found = address(service), list[int]()
    assert url.startswith("http://127.0.0.1:")

    def ask() -> None:
        found.append(httpx2.post(f"{url}/predict", json={"text": "is it red " * 40}, timeout=120).status_code)

    clients = [threading.Thread(target=ask) for _ in range(12)]
    for client in clients:
        client.start()
    while httpx2.get(f"{url}/health", timeout=120).json()["asked"] < 12:
        time.sleep(0.01)
    os.kill(service.pid, signal.SIGTERM)
    for client in clients:
        client.join()
    _, err = service.ended(120)
    assert (service.status, found) == (0, [200] * 12)
    assert re.search(r"stopped, after 12 answers in \d+ batch", err)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["port=70000"], "port=70000: expected a whole number, at least 0 and at most 65535"),
        (["port=x"], "port=x: expected a whole number, at least 0"),
        (["port={taken}"], "cannot be served at (Address already in use); give another port=N; 0 takes a free one"),
        (["host=300.1.1.1"], "host=300.1.1.1 port=8000: cannot be served at"),
        (["port=99999"], "port=99999: expected a whole number, at least 0 and at most 65535"),
        (["queue=0"], "queue=0: expected a whole number, at least 1"),
        (["engine.processes=2"], "engine.processes=2: only fpt train, eval and predict take several processes"),
        (["prompt.file=x"], "both name a prompt"),
    ],
)
def test_bad_input_ends_in_one_line(cli: Cli, finished: Path, words: list[str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("serve", f"run={finished}", *(word.format(taken=port) for word in words))
    assert (done.status, len(done.err.strip().splitlines())) == (2, 1), done.err
    assert said in done.err


def test_without_its_libraries_it_says_what_to_install(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "NEEDED", ("uvicorn", "a_library_that_is_not_there"))
    done = cli("serve", "run=nowhere")
    assert (done.status, done.err) == (
        2,
        "fpt: fpt serve needs a_library_that_is_not_there: pip install 'fpt[serve]'\n",
    )


def test_an_address_of_this_machine_alone_is_asked_under_its_names_alone() -> None:
    assert all({host, "localhost"} <= set(use._own_names(host)) for host in ("127.0.0.1", "127.1.2.3", "::1"))
    assert not any(map(use._own_names, ("0.0.0.0", "192.168.1.2", "::", "example.org")))
