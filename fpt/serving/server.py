"""Listens on a socket, opened before the model is, and serves an application on it until told to stop."""

import asyncio
import errno
import logging
import os
import socket

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from fpt.devices.interrupts import Interrupted, heard
from fpt.errors import UserError

PATIENCE = 30  # seconds to answer the questions that arrived before the stop
SENT = 10  # seconds within which a request's headers must arrive, and then its body
WAITING = 128  # connections that the system holds until they are accepted


def bound(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 takes a free one."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        hint = "give another port=N; 0 takes a free one" if error.errno == errno.EADDRINUSE else "give another host="
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise UserError(f"host={host} port={port}: cannot be served at ({why}); {hint}") from None


def address(own: socket.socket) -> str:
    """Return the address of a socket as typed in a browser."""
    host, port = own.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class TimedProtocol(H11Protocol):
    """HTTP as uvicorn speaks it, but a connection whose request does not come in time is closed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, and wait for its first request."""
        super().connection_made(transport)
        self._limit_wait()

    def on_response_complete(self) -> None:
        """Wait for the next request of the connection, after an answer."""
        self._limit_wait()
        super().on_response_complete()

    def _limit_wait(self) -> None:
        self.loop.call_later(SENT, self._close_without_new_request, self.cycle)

    def _close_without_new_request(self, before: object) -> None:
        if self.cycle is before:
            self.timeout_keep_alive_handler()


def settings(app: FastAPI, most: int) -> uvicorn.Config:
    """Configure uvicorn for up to `most` connections."""
    # The caller announces start and stop itself, so uvicorn logs only errors.
    return uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        log_config=None,  # uvicorn's own would close all handlers that there are, and absl's closes standard error then
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=PATIENCE,
        limit_concurrency=most,
        backlog=WAITING,
    )


def run(app: FastAPI, own: socket.socket, *, most: int) -> None:
    """Serve up to `most` connections until SIGINT or SIGTERM; waiting questions are answered before it ends."""
    logging.getLogger("asyncio").addFilter(_is_no_repeated_lack)
    with own, heard():
        try:
            uvicorn.Server(settings(app, most)).run(sockets=[own])
        except Interrupted:  # uvicorn raises it again when it has ended
            return


def _is_no_repeated_lack(record: logging.LogRecord) -> bool:
    """Drop what asyncio logs for each connection that it cannot accept without descriptors: a traceback every time."""
    text = record.getMessage()
    return "out of system resource" not in text and "_start_serving" not in text
