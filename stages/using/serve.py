"""Open learned prompts with their model, and answer whoever asks over a network."""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fpt.config.run_config import RunConfig
from fpt.serving import app, server
from fpt.serving.waiting import Waiting
from fpt.tasks.catalogue import rules_of
from stages.using.learned import LearnedPrompt
from stages.using.predict import mixed_predictor

CONNECTIONS = 256  # besides those whose questions wait


@dataclass(frozen=True)
class Service:
    """What is served, and with which limits.

    Attributes:
        prompts: by name.
        examples: a text for each, for people.
        own: the socket, bound already.
        own_names: the hosts under which it may be asked; none: whichever.
        field: of a record, with the name of its prompt.
        longest_queue: how many questions may wait.
        longest_body: bytes of a request's body.
        beams: of beam search; 1: greedy.
        max_new_tokens: as `predictor` has it.
    """

    prompts: Mapping[str, tuple[RunConfig, LearnedPrompt]]
    examples: Mapping[str, str]
    own: socket.socket
    own_names: Sequence[str]
    field: str
    longest_queue: int
    longest_body: int
    beams: int = 1
    max_new_tokens: int | None = None


def serve(service: Service, say: Callable[[str], None]) -> None:
    """Answer until told to stop."""
    config, _ = next(iter(service.prompts.values()))
    opened = mixed_predictor(service.prompts, beams=service.beams, max_new_tokens=service.max_new_tokens)
    with opened as mixed:
        waiting = Waiting(mixed.answer, batch_size=config.train.eval_batch, longest=service.longest_queue)
        served = {
            name: app.Served(own.task.name, rules_of(own.task), service.examples[name])
            for name, (own, _) in service.prompts.items()
        }
        made = app.make(
            config.model.name,
            served,
            waiting,
            field=service.field,
            longest_body=service.longest_body,
            own_names=service.own_names,
        )
        say(f"{', '.join(served)} on {config.model.name} at {server.address(service.own)}; Ctrl-C ends")
        server.run(made, service.own, most=service.longest_queue + CONNECTIONS)
        say(f"stopped, after {waiting.answered:,} answers in {waiting.batches:,} batches")
