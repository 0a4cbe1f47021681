"""Whatever is sent to the service: it answers or closes the connection, and answers who asks beside it."""

import json
import logging
import random
import re
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlparse

import httpx2
import pytest

from tests.fpt.serving.conftest import LONGEST, Here

GOOD = json.dumps({"prompt": "boolq", "question": "is it red", "passage": "The lamp is red."}).encode()
HOST = b"Host: 127.0.0.1\r\n"
EXPECTED = {100, 200, 400, 404, 405, 413, 422}


def request(body: bytes, headers: bytes = b"", line: bytes = b"POST /predict HTTP/1.1") -> bytes:
    length = b"" if b"ength" in headers or b"ncoding" in headers else b"Content-Length: %d\r\n" % len(body)
    return line + b"\r\n" + HOST + length + headers + b"\r\n" + body


def chunked(*parts: bytes) -> bytes:
    return request(b"".join(parts), b"Transfer-Encoding: chunked\r\n")


BODIES = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"[" * 1900,
    b'{"a":' * 380,
    b'{"text": 1e999}',
    b'{"text": NaN, "prompt": "boolq"}',
    b'{"text": ' + b"9" * 1900 + b"}",
    b'{"prompt": "boolq", "text": -0.0}',
    b'{"prompt": ["boolq"], "text": "x"}',
    b'{"prompt": "boolq", "text": null}',
    b'{"": ""}',
    b'{"prompt": "boolq", "text": "\\u0000"}',
    b'{"prompt": "boolq", "text": "\\ud800"}',
    b'{"prompt": "boolq", "text": "${oc.env:HOME} {{ 7 * 7 }} </s> <extra_id_0>"}',
    b"\xef\xbb\xbf" + GOOD,
    GOOD.decode().encode("utf-16"),
    GOOD.decode().encode("utf-32"),
    GOOD.replace(b"red", b"\xff\xfe"),
    GOOD.replace(b"red", b"\xed\xa0\x80"),
    b"prompt=boolq&text=x",
    b"\x1f\x8b\x08" + bytes(40),
]
HEADERS = [
    b"X: " + b"y" * 70_000,
    b"Content-Length: -1",
    b"Content-Length: +5",
    b"Content-Length: 99999999999999999999999",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"no colon",
    b"Sp ace: x",
    b"X: a\0b",
    b" folded: x",
    b"Host: evil.example",
    b"Content-Encoding: gzip",
    b"Content-Type: \xff\xfe; charset=\xff",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13",
    b"Upgrade: h2c\r\nConnection: Upgrade",
    b"Expect: 100-continue",
]
STREAMS = [
    b"\r\n" * 50,
    b"\0" * 300,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/0.9\r\n\r\n",
    b"POST /predict HTTP/9.9\r\n\r\n",
    b"POST /predict\r\n\r\n",
    b"POST " + b"/" * 70_000 + b" HTTP/1.1\r\n",
    *(request(GOOD, header + b"\r\n") for header in HEADERS),
    request(GOOD, b"X: y\r\n" * 5000),
    request(GOOD, line=b"BREW /predict HTTP/1.1"),
    request(GOOD, line=b"POST /../../etc/passwd HTTP/1.1"),
    request(GOOD, line=b"POST /predict/%00%ff?\xff HTTP/1.1"),
    request(GOOD, line=b"POST http://evil.example/predict HTTP/1.1"),
    request(GOOD, line=b"CONNECT evil.example:443 HTTP/1.1"),
    request(GOOD, b"Connection: keep-alive, close\r\n") * 5,
    request(GOOD) * 20,
    request(GOOD) + b"garbage\r\n\r\n",
    request(b"{") + request(GOOD)[:40],
    request(b"x" * (LONGEST + 1)) + request(GOOD),
    chunked(b"%x\r\n" % len(GOOD), GOOD, b"\r\n0\r\n\r\n"),
    chunked(b"ffffffffffffffffffff\r\n", GOOD),
    chunked(b"zz\r\n", GOOD),
    chunked(b"-1\r\n", GOOD),
    chunked(b"5\r\n", GOOD),
    chunked(*[b"1\r\nx\r\n"] * (LONGEST + 1)),
    chunked(b"1;" + b"x" * 70_000),
    chunked(b"0\r\n", b"Trailer: " + b"x" * 70_000),
]


def mutants(number: int) -> Iterator[bytes]:
    """Good requests in which bytes were changed, inserted, doubled or cut at random."""
    draw = random.Random(0)
    for _ in range(number):
        data = bytearray(request(GOOD))
        for _ in range(draw.choice((1, 1, 2, 5))):
            at, length = draw.randrange(len(data)), draw.choice((1, 1, 2, 20))
            new = draw.choice((b"", draw.randbytes(length), bytes(data[at : at + length]) * 2))
            data[at : at + length] = new
        yield bytes(data)


def sent(port: int, data: bytes, how: str) -> list[int]:
    """The codes that come back until the service closes the connection, or waits for more."""
    back = b""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as asking, suppress(ConnectionError, TimeoutError):
        asking.sendall(data)
        if how == "reset":
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return []
        if how == "ended":
            asking.shutdown(socket.SHUT_WR)
        while part := asking.recv(65536):
            back += part
    return [int(code) for code in re.findall(rb"HTTP/1.1 (\d+)", back)]


@pytest.mark.dear
def test_innocents_beside_malformed_requests_are_answered(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    """They end in codes for a client's fault, and the service says nothing of them."""
    logging.getLogger("uvicorn").addHandler(caplog.handler)
    requests = [*STREAMS, *map(request, BODIES), *mutants(150)]
    cases = [(one, "whole") for one in requests] + [(one[: len(one) // 2], "cut") for one in requests[::9]]
    cases += [(one, "ended") for one in requests[::7]] + [(one, "reset") for one in requests[::5]]
    random.Random(1).shuffle(cases)
    port = urlparse(here.url).port or 0
    with ThreadPoolExecutor(64) as threads, httpx2.Client(base_url=here.url, timeout=60) as client:
        wanted = client.post("/predict", content=GOOD).json()
        malformed = [threads.submit(sent, port, *case) for case in cases]
        while not all(one.done() for one in malformed):
            answer = client.post("/predict", content=GOOD)
            assert answer.status_code == 200
            assert answer.json()["output"] == wanted["output"]
        assert client.get("/health").json()["waiting"] == 0
    assert {code for one in malformed for code in one.result()} == EXPECTED
    assert not caplog.text
