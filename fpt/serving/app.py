"""The service: what may be asked under which address, and how it is refused."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, StrictUndefined
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fpt import __version__
from fpt.errors import UserError
from fpt.serving.waiting import Full, Waiting
from fpt.tasks.file_formats import unique
from fpt.tasks.predict_input import RAW, by_template
from fpt.tasks.task import TaskRules

RETRY = 1  # seconds after which to ask again
SENT = 10  # seconds in which a request's body must have come
HEADERS = {  # of every answer, for browsers
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


@dataclass(frozen=True)
class Served:
    """A prompt that answers.

    Attributes:
        task: what it was trained on.
        rules: how a record becomes a text.
        example: a text as it is to be asked, for people.
    """

    task: str
    rules: TaskRules
    example: str


class Token(BaseModel):
    """A generated token."""

    token: str
    probability: float = Field(description="the model's own, given the source and the tokens before it")


class Answer(BaseModel):
    """What the model says to a text."""

    answer: str = Field(description="what the task reads from the output")
    output: str = Field(description="what was generated")
    score: float = Field(description="natural logarithm of the output's probability, its end included")
    tokens: list[Token]
    input: str = Field(description="the text as the model saw it, before any cut")
    cut: int = Field(description="how many of its tokens were too many")
    prompt: str


class Problem(BaseModel):
    """Why there is no answer."""

    error: str


class Health(BaseModel):
    """How the service is."""

    status: str
    model: str
    prompts: list[str]
    waiting: int
    asked: int
    answered: int
    batches: int


def make(
    model: str,
    prompts: Mapping[str, Served],
    waiting: Waiting,
    *,
    field: str,
    longest_body: int,
    own_names: Sequence[str],
) -> FastAPI:
    """The service, which answers while it runs.

    Args:
        model: its name, for people.
        prompts: by name.
        waiting: the line of questions before the model.
        field: of a record, with its prompt's name; it may be left out where there is but one.
        longest_body: bytes of a request's body.
        own_names: requests to these hosts alone are answered, so that no page on the web can have a browser ask under
            another (DNS rebinding); none: to whichever.
    """

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(waiting.work())
        yield
        work.cancel()

    app = FastAPI(
        title="fpt",
        version=__version__,
        description=f"Prompts on {model}.",
        lifespan=running,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(_Limited, longest=longest_body)
    if own_names:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=own_names)
    page, policy = _page(model, prompts, field)
    names = ", ".join(prompts)
    problems: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem, "description": why}
        for code, why in {
            400: "the record cannot be answered",
            413: f"more than {longest_body:,} bytes",
            422: "no record",
            503: "too many wait",
        }.items()
    }
    example = {field: next(iter(prompts)), RAW: next(iter(prompts.values())).example}

    @app.post("/predict", responses=problems)
    async def predict(record: Annotated[dict[str, str | int | float | bool], Body(examples=[example])]) -> Answer:
        """Answer a record: the fields of a prompt's template, or the whole source as `text`, as `fpt predict` reads."""
        name = str(record.get(field, names if len(prompts) == 1 else None))
        if name not in prompts:
            given = f"'{field}' is {name!r:.100}" if field in record else f"no field '{field}'"
            raise UserError(f"{given}; expected the name of a prompt, one of {names}")
        asked = by_template(prompts[name].rules)(dict(record), "record")._replace(group=name)
        found = await waiting.ask(asked)
        return Answer(**{**found.to_json(), "prompt": name})

    @app.get("/health")
    async def health() -> Health:
        """Whether the service answers, and how many wait."""
        return Health(
            status="ok",
            model=model,
            prompts=list(prompts),
            waiting=len(waiting),
            asked=waiting.asked,
            answered=waiting.answered,
            batches=waiting.batches,
        )

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def start() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @app.middleware("http")
    async def guarded(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(UserError)
    async def refused(_: Request, error: UserError) -> Response:
        return _problem(400, str(error))

    @app.exception_handler(Full)
    async def full(_: Request, __: Full) -> Response:
        return _problem(503, "too many questions wait; ask again", **{"Retry-After": str(RETRY)})

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = first["loc"][1] if len(first["loc"]) > 1 else "body"  # behind it are the types it could have had
        place = name if isinstance(name, str) else "body"
        return _problem(422, f"{place}: {first['msg']}; expected a JSON object of texts, numbers and truth values")

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return _problem(
            error.status_code, f"{error.detail}; there are POST /predict, GET /health and GET /openapi.json"
        )

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return _problem(500, f"the model failed ({type(error).__name__}); the service's own output says more")

    return app


def _problem(code: int, text: str, **headers: str) -> Response:
    said = text.encode(errors="backslashreplace").decode()  # it may quote what is no character
    return JSONResponse({"error": said}, code, headers)


def _page(model: str, prompts: Mapping[str, Served], field: str) -> tuple[str, str]:
    """The page with a text field, and the policy by which a browser loads nothing else and runs nothing else."""
    folder = files(__package__)
    script = (folder / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        (folder / "page.html").read_text(encoding="utf-8")
    )
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return template.render(model=model, prompts=prompts, field=field, script=script, version=__version__), policy


def _twice(body: bytes) -> str:
    """What is said of a key that occurs twice in a body; empty: none does."""
    try:
        json.loads(body, object_pairs_hook=unique)
    except UserError as error:
        return str(error)
    except (ValueError, RecursionError):  # which is said where the body is read
        pass
    return ""


class _Limited:
    """Refuses bodies that are too long, before they are read to their end; that take too long; and keys given twice."""

    def __init__(self, app: ASGIApp, longest: int) -> None:
        self._app, self._longest = app, longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        refusal = _problem(413, f"the body has more than {self._longest:,} bytes", Connection="close")
        if not stated.isdigit() or int(stated) > self._longest:
            await refusal(scope, receive, send)
            return
        try:
            async with asyncio.timeout(SENT):
                body = await self._body(receive)
        except TimeoutError:
            refusal = _problem(408, f"the body did not come within {SENT} seconds", Connection="close")
            await refusal(scope, receive, send)
            return
        if body is None:
            return
        if len(body) > self._longest:
            await refusal(scope, receive, send)
            return
        if twice := _twice(bytes(body)):
            refusal = _problem(422, f"body: {twice}")
            await refusal(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, again, send)

    async def _body(self, receive: Receive) -> bytearray | None:
        """What was sent, no further than it is too long; None: who sent it has left."""
        body = bytearray()
        while True:  # a body in chunks states no length
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self._longest or not message.get("more_body"):
                return body
