"""The web service: what can be asked at which address, how questions wait and are refused, the server that listens."""

import asyncio
import base64
import errno
import hashlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, StrictUndefined
from starlette.exceptions import HTTPException as StarletteException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from fpt import __version__
from fpt.devices.ending import Interrupted, heard
from fpt.errors import UserError, reason
from fpt.tasks.file_formats import unique
from fpt.tasks.predict_input import by_prompt, raw_field
from fpt.tasks.task import Example, TaskRules

if TYPE_CHECKING:
    from fpt.training.prediction import Prediction  # which imports torch

PATIENCE = 30  # seconds to answer the questions that arrived before the stop
Question = tuple[Example, "asyncio.Future[Prediction]"]


class Served(NamedTuple):
    """A prompt that is served: its task, the task's rules for making a text of a record, and a text to try it with."""

    task: str
    rules: TaskRules
    example: str


@dataclass(frozen=True)
class Service:
    """The prompts of one model that are served, and the limits on requests."""

    model: str
    prompts: Mapping[str, Served]
    field: str  # the field of a record that names its prompt
    longest_body: int  # the most bytes of a request's body
    own_names: Sequence[str]  # the host names that requests may use, against DNS rebinding; any if empty


class Waiting:
    """A queue for one model, which computes in a thread of its own; no question waits for a batch to fill up.

    `asked` questions have arrived, and `answered` of them were answered in so many `batches`.
    """

    def __init__(
        self, answer: Callable[[Sequence[Example]], "list[Prediction]"], *, batch_size: int, longest: int
    ) -> None:
        """Prepare a queue for up to `longest` questions, of which `answer` gets up to `batch_size` at once."""
        self._answer, self._batch_size = answer, batch_size
        self._queue = asyncio.Queue[Question](longest)
        self.asked = self.answered = self.batches = 0

    def __len__(self) -> int:
        return self._queue.qsize()

    async def ask(self, example: Example) -> "Prediction":
        """Wait for the prediction; raises asyncio.QueueFull if too many questions wait already."""
        future = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((example, future))
        self.asked += 1
        return await future

    async def work(self) -> None:
        """Answer questions until cancelled; an error with a question is raised in the call of `ask` that asked it."""
        with ThreadPoolExecutor(1, thread_name_prefix="model") as thread:
            while True:
                batch = [await self._queue.get()]
                while len(batch) < self._batch_size and not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                if batch := [question for question in batch if not question[1].done()]:  # not for clients that left
                    await self._compute(thread, batch)

    async def _compute(self, thread: ThreadPoolExecutor, batch: list[Question]) -> None:
        examples = [example for example, _ in batch]
        try:
            found = await asyncio.get_running_loop().run_in_executor(thread, self._answer, examples)
        except Exception as error:
            if len(batch) > 1:  # one question may have caused the error, so each is tried alone
                for one in batch:
                    await self._compute(thread, [one])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        self.answered, self.batches = self.answered + len(batch), self.batches + 1
        for (_, future), prediction in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(prediction)


def make(service: Service, waiting: Waiting) -> FastAPI:
    """Make the application that answers with the service's prompts through the model's queue."""

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(waiting.work())
        yield
        work.cancel()

    app = FastAPI(title="fpt", version=__version__, lifespan=running, docs_url=None, redoc_url=None)
    if service.own_names:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=service.own_names)
    _add_addresses(app, service, waiting)
    _add_refusals(app)
    return app


def _add_addresses(app: FastAPI, service: Service, waiting: Waiting) -> None:
    page, policy = _page(service)
    name, prompt = next(iter(service.prompts.items()))
    example = {service.field: name, raw_field(prompt.rules): prompt.example}
    to_example = by_prompt({name: served.rules for name, served in service.prompts.items()}, service.field)
    body = {"content": {"application/json": {"schema": {"type": "object"}, "example": example}}, "required": True}

    @app.post("/predict", openapi_extra={"requestBody": body})
    async def predict(request: Request) -> dict[str, Any]:
        """Answer a record, with what `fpt predict --json` prints and the prompt's name.

        A record has the fields of a prompt's template, or the whole source as `text` (`source` if that is a field).
        """
        asked = to_example(_record(await _body(request, service.longest_body)), "record")
        try:
            found = await waiting.ask(asked)
        except asyncio.QueueFull:
            raise HTTPException(503, "too many questions wait; ask again", {"Retry-After": "1"}) from None
        return {**found.to_json(), "prompt": asked.group}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the service answers, and how many questions came, wait and were answered."""
        counts = {"asked": waiting.asked, "answered": waiting.answered, "batches": waiting.batches}
        prompts = list(service.prompts)
        return {"status": "ok", "model": service.model, "prompts": prompts, "waiting": len(waiting), **counts}

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def start() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})


async def _body(request: Request, longest: int) -> bytes:
    """Read a request's body; refuse one that is too long, before all of it is read."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > longest:
                raise HTTPException(413, f"the body has more than {longest:,} bytes", {"Connection": "close"})
    except ClientDisconnect:
        raise HTTPException(400, "the client has left") from None
    return bytes(body)


def _record(body: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object, in which no key may occur twice."""
    try:
        record = json.loads(body, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, UserError) else f"not JSON ({reason(error)})"
        raise HTTPException(422, f"body: {why}") from None
    if not isinstance(record, dict):
        raise HTTPException(422, "body: expected a JSON object of texts, numbers and truth values")
    return record


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(UserError)
    async def refused(_: Request, error: UserError) -> Response:
        return _problem(400, str(error))

    @app.exception_handler(StarletteException)
    async def failed_request(_: Request, error: StarletteException) -> Response:
        known = (
            "; there are POST /predict, GET /health and GET /openapi.json" if error.status_code in (404, 405) else ""
        )
        return _problem(error.status_code, f"{error.detail}{known}", error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return _problem(500, f"the model failed ({type(error).__name__}); the service's own output says more")


def _problem(code: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    encodable = text.encode(errors="backslashreplace").decode()  # the text may quote half of a surrogate pair
    return JSONResponse({"error": encodable}, code, headers)


def _page(service: Service) -> tuple[str, str]:
    """Render the page with a text field; returns it with a policy by which browsers load and run nothing else."""
    folder = Path(__file__).parent
    script = (folder / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        (folder / "page.html").read_text(encoding="utf-8")
    )
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return template.render(**vars(service), raw_field=raw_field, script=script, version=__version__), policy


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


def settings(app: FastAPI, most: int) -> uvicorn.Config:
    """Configure uvicorn for up to `most` connections."""
    # The caller announces start and stop itself, so uvicorn logs only errors.
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,  # uvicorn's own would close all handlers that there are, and absl's closes standard error then
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=PATIENCE,
        limit_concurrency=most,
    )


def run(app: FastAPI, own: socket.socket, *, most: int) -> None:
    """Serve up to `most` connections until SIGINT or SIGTERM; waiting questions are answered before it ends."""
    with own, heard():
        try:
            uvicorn.Server(settings(app, most)).run(sockets=[own])
        except Interrupted:  # uvicorn raises it again when it has ended
            return
