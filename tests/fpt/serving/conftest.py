"""A service at a real socket, on the embedded model with two prompts that were not trained."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
import uvicorn
from fastapi import FastAPI

from fpt.config.compose import load
from fpt.config.schema import PromptConfig
from fpt.devices.processes import alone
from fpt.serving import app
from fpt.serving.app import Waiting
from fpt.tasks.catalogue import rules_of
from fpt.training.prediction import Predictor
from stages.using.learned import LearnedPrompt, predictor

LONGEST = 2000  # bytes of a body
HOSTILE = "</script><script>document.title = 'taken over'</script><img src=x onerror=alert(1)> {{ 7 * 7 }}"


@dataclass(frozen=True)
class Here:
    url: str
    mixed: Predictor


@contextmanager
def running(made: FastAPI) -> Iterator[str]:
    """Within, the service answers at this address."""
    own = app.bound("127.0.0.1", 0)
    library = uvicorn.Server(app.settings(made, most=300))
    thread = threading.Thread(target=library.run, kwargs={"sockets": [own]})
    thread.start()
    while not library.started:
        time.sleep(0.01)
    try:
        yield app.address(own)
    finally:
        library.should_exit = True
        thread.join()
        own.close()


@pytest.fixture(scope="session")
def here() -> Iterator[Here]:
    prompts, served = {}, {}
    for number, (task, length) in enumerate({"boolq": 20, "mnli": 7}.items()):
        config = alone(load([f"task={task}", "task.world=plain", "train.eval_batch=8"]))
        vectors = torch.randn(length, 128, generator=torch.Generator().manual_seed(number))
        prompts[task] = config, LearnedPrompt(task, {"prompt": vectors}, PromptConfig(length=length))
        served[task] = app.Served(task, rules_of(config.task), f"{HOSTILE} {task}")
    with predictor(prompts) as mixed:
        waiting = Waiting(mixed.answer, batch_size=8, longest=100)
        service = app.Service("tiny", served, "prompt", LONGEST, ["127.0.0.1"])
        with running(app.make(service, waiting)) as url:
            yield Here(url, mixed)
