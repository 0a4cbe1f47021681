"""Connections on which no whole request comes are closed; without file descriptors left the service says little."""

import asyncio
import io
import logging
import os
import resource
import socket
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlparse

import pytest
from fastapi import FastAPI

from fpt.serving import server
from tests.fpt.serving.conftest import running
from tests.processes import FORKS

HALF_A_REQUEST = b"POST /predict HTTP/1.1\r\nHost: x\r\n"


def serve_with_few_files(own: socket.socket, said: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    app = FastAPI()
    app.get("/health")(lambda: "well")
    server.run(app, own, most=300)


@pytest.mark.dear
def test_half_open_connections_fill_no_log_and_leave_a_service_that_answers(tmp_path: Path) -> None:
    own = server.bound("127.0.0.1", 0)
    process = FORKS.Process(target=serve_with_few_files, args=(own, str(tmp_path / "said")), daemon=True)
    process.start()
    with ExitStack() as connections:
        for _ in range(100):
            one = connections.enter_context(socket.create_connection(own.getsockname()[:2], timeout=30))
            one.sendall(HALF_A_REQUEST)
        time.sleep(1.5)  # asyncio tries again every second
    with urllib.request.urlopen(f"{server.address(own)}/health", timeout=30) as answer:
        assert answer.status == 200
    process.terminate()
    process.join(30)
    assert process.exitcode == 0
    assert (tmp_path / "said").stat().st_size < 1000


def test_a_request_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a new connection or after an answer; one that came is answered, however long that takes."""
    monkeypatch.setattr(server, "SENT", 1)
    app = FastAPI()

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(1.5)

    with running(app) as url, ExitStack() as connections:
        place = "127.0.0.1", urlparse(url).port or 0
        silent, half, again = [connections.enter_context(socket.create_connection(place, 10)) for _ in range(3)]
        half.sendall(HALF_A_REQUEST)
        again.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"null") and (part := again.recv(4096)):  # the body may come by itself
            answer += part
        assert (answer[:12], answer[-4:]) == (b"HTTP/1.1 200", b"null")
        again.sendall(HALF_A_REQUEST)
        assert [one.recv(4096) for one in (silent, half, again)] == [b""] * 3


def test_the_handlers_of_other_libraries_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn's own configuration of logging closes them, and absl's, which rouge_score brings, its stream too."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(handler, "close", stream.close)
    server.settings(FastAPI(), 1)
    assert not stream.closed
