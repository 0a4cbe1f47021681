"""A service without file descriptors left says little, and answers again when connections are closed."""

import os
import resource
import socket
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi import FastAPI

from fpt.serving import server
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
