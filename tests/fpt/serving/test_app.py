"""Who asks over a network is answered as by the predictor, or refused in a line; many at once share batches."""

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from fpt.config.compose import load
from fpt.serving import app
from fpt.serving.app import Served, Service, Waiting, make
from fpt.tasks.catalogue import rules_of
from fpt.tasks.predict_input import raw_example
from fpt.tasks.task import Example
from fpt.training.prediction import Prediction
from tests.fpt.serving.conftest import LONGEST, Here, running

LAMPS = ["The lamp is red.", "The stone is old. The lamp is blue.", "Maya has a pony."]


@pytest.fixture(scope="module")
def client(here: Here) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=here.url, timeout=60) as client:
        yield client


def test_many_at_once_are_answered_in_batches_as_the_predictor_answers(here: Here, client: httpx2.Client) -> None:
    asked = [
        raw_example(f"question: is it number {number} passage: {LAMPS[number % 3]}")._replace(
            group=("boolq", "mnli")[number % 2]
        )
        for number in range(40)
    ]
    wanted = here.mixed.answer(asked)
    before = client.get("/health").json()
    with ThreadPoolExecutor(20) as threads:
        bodies = [{"prompt": one.group, "text": one.source} for one in asked]
        found = list(threads.map(lambda body: client.post("/predict", json=body).json(), bodies))
    for one, other in zip(found, wanted, strict=True):
        assert [one[key] for key in ("answer", "output", "input", "prompt")] == [
            getattr(other, key) for key in ("answer", "output", "input", "prompt")
        ]
        assert one["score"] == pytest.approx(other.score, abs=1e-3)
    assert len({one["output"] for one in found}) > 1
    after = client.get("/health").json()
    assert after["answered"] - before["answered"] == 40
    assert after["batches"] - before["batches"] < 40
    assert (after["status"], after["model"], after["prompts"], after["waiting"]) == ("ok", "tiny", ["boolq", "mnli"], 0)


def test_a_records_fields_go_into_its_prompts_template(client: httpx2.Client) -> None:
    found = client.post("/predict", json={"prompt": "mnli", "premise": LAMPS[0], "hypothesis": 7}).json()
    assert found["input"] == f"hypothesis: 7 premise: {LAMPS[0]}"
    long = client.post("/predict", json={"prompt": "mnli", "text": "lamp " * 300}).json()
    assert long["cut"] > 100


def escaped(record: dict[str, str]) -> dict[str, Any]:
    """A request in ASCII, as it can hold half of a surrogate pair."""
    return {"content": json.dumps(record), "headers": {"Content-Type": "application/json"}}


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (
            {"json": {"prompt": "cola", "text": "x"}},
            400,
            "record: 'prompt' is 'cola'; expected the name of a prompt, one of boolq",
        ),
        ({"json": {"text": "x"}}, 400, "record: no field 'prompt'; expected the name of a prompt"),
        (
            {"json": {"prompt": "boolq", "question": "x"}},
            400,
            "record: 'passage' is missing; expected a text or a number, or the whole source as 'text'",
        ),
        (escaped({"prompt": "boolq", "text": "a \ud800"}), 400, "record: 'text', letter 3: half of a surrogate pair"),
        (escaped({"prompt": "boolq", "text": "a\0"}), 400, "record: 'text', letter 2: a NUL"),
        (
            escaped({"prompt": "mnli", "premise": "\udfff", "hypothesis": "x"}),
            400,
            "record: 'premise', letter 1: half",
        ),
        (
            escaped({"prompt": "\ud800", "text": "x"}),
            400,
            "record: 'prompt' is '\\ud800'; expected the name of a prompt",
        ),
        (
            escaped({"prompt": "boolq", "\ud800": "x"}),
            400,
            "record: 'question' is missing; expected a text or a number, or",
        ),
        ({"content": '{"text": "a", "text": "b"}'}, 422, "body: the key 'text' occurs twice in one object; give it"),
        ({"json": [1]}, 422, "body: expected a JSON object"),
        ({"json": {"prompt": "boolq", "text": ["x"]}}, 400, "record: 'text' is ['x']; expected a text or a number"),
        (
            {"content": "{", "headers": {"Content-Type": "application/json"}},
            422,
            "body: not JSON (JSONDecodeError: Expect",
        ),
        ({"json": {"prompt": "boolq", "text": "x" * LONGEST}}, 413, "the body has more than 2,000 bytes"),
        ({"content": iter([b"x" * 1500, b"x" * 1500])}, 413, "the body has more than 2,000 bytes"),  # states no length
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_line(
    client: httpx2.Client, request_: dict[str, Any], code: int, said: str
) -> None:
    found = client.post("/predict", **request_)
    assert found.status_code == code
    assert list(found.json()) == ["error"]
    assert found.json()["error"].startswith(said)


def test_other_addresses_and_other_names_of_the_machine_are_refused(here: Here, client: httpx2.Client) -> None:
    assert client.get("/predict").status_code == 405
    assert "there are POST /predict, GET /health" in client.get("/nowhere").json()["error"]
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 400
    assert "access-control-allow-origin" not in client.get("/health", headers={"Origin": "http://evil.example"}).headers


def test_it_describes_itself(client: httpx2.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert sorted(paths) == ["/health", "/predict"]
    assert client.get("/docs").status_code == 404  # whose viewer would come from elsewhere


def test_the_page_may_load_nothing_and_run_only_its_own_script(client: httpx2.Client) -> None:
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'sha256-" in policy


def predicted(example: Example) -> Prediction:
    return Prediction(example.source, 0, "", example.source, 0.0, ())


def test_who_finds_too_many_waiting_is_told_to_come_again() -> None:
    """And who waits is answered; a failing model fails those of its batch, in a line, and nobody else."""
    go, began = threading.Event(), threading.Event()

    def answer(examples: Sequence[Example]) -> list[Prediction]:
        began.set()
        go.wait(30)
        if examples[0].source == "bad":
            raise RuntimeError("a secret of the machine")
        return [predicted(example) for example in examples]

    waiting = Waiting(answer, batch_size=1, longest=1)
    served = Served("boolq", rules_of(load(["task=boolq"]).task), "")
    service = Service("m", {"a": served}, "prompt", 99, ["127.0.0.1"])
    with (
        running(make(service, waiting)) as url,
        httpx2.Client(base_url=url, timeout=60) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        first = threads.submit(client.post, "/predict", json={"text": "bad"})
        assert began.wait(30)
        second = threads.submit(client.post, "/predict", json={"text": "good"})
        while not client.get("/health").json()["waiting"]:
            pass
        third = client.post("/predict", json={"text": "x"})
        assert (third.status_code, third.headers["Retry-After"]) == (503, "1")
        go.set()
        assert first.result().status_code == 500
        assert "secret" not in first.result().text
        assert second.result().json()["answer"] == "good"


def test_a_bad_question_fails_alone(here: Here, client: httpx2.Client) -> None:
    """Of those that are asked together, whether it is refused or the model fails on it."""
    records = [
        {"prompt": "boolq", "text": ("a \ud800", "", LAMPS[0], "</s> <pad>")[number % 4]} for number in range(40)
    ]
    with ThreadPoolExecutor(20) as threads:
        codes = list(threads.map(lambda record: client.post("/predict", **escaped(record)).status_code, records))
    assert codes == [400, 200, 200, 200] * 10
    seen = list[int]()

    def answer(examples: Sequence[Example]) -> list[Prediction]:
        seen.append(len(examples))
        if any(example.source == "bad" for example in examples):
            raise RuntimeError("of the whole batch")
        return [predicted(example) for example in examples]

    async def ask() -> list[Prediction | BaseException]:
        waiting = Waiting(answer, batch_size=4, longest=9)
        asked = [asyncio.create_task(waiting.ask(raw_example(text))) for text in ("a", "bad", "b", "c")]
        work = asyncio.create_task(waiting.work())
        async with asyncio.timeout(60):  # where one is never answered
            found = await asyncio.gather(*asked, return_exceptions=True)
        work.cancel()
        return found

    found = asyncio.run(ask())
    assert [getattr(one, "answer", type(one)) for one in found] == ["a", RuntimeError, "b", "c"]
    assert seen == [4, 1, 1, 1, 1]


def test_who_has_left_is_not_computed() -> None:
    seen = list[str]()

    def answer(examples: Sequence[Example]) -> list[Prediction]:
        seen.extend(example.source for example in examples)
        return [predicted(example) for example in examples]

    async def ask() -> list[str]:
        waiting = Waiting(answer, batch_size=4, longest=3)
        tasks = [asyncio.create_task(waiting.ask(raw_example(text))) for text in "abcd"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        work = asyncio.create_task(waiting.work())
        with pytest.raises(asyncio.QueueFull):
            await tasks[3]
        found = [(await tasks[0]).answer, (await tasks[2]).answer]
        work.cancel()
        return found

    assert asyncio.run(ask()) == ["a", "c"]
    assert seen == ["a", "c"]


def test_the_handlers_of_other_libraries_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn's own configuration of logging closes them, and absl's, which rouge_score brings, its stream too."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(handler, "close", stream.close)
    app.settings(FastAPI(), 1)
    assert not stream.closed
