"""The verb `fpt serve`, with which prompts answer over a network."""

import ipaddress
from importlib.util import find_spec

from fpt.cli.arguments import Arguments
from fpt.cli.subjects import learned_from, subjects_of
from fpt.config.run_config import RunConfig
from fpt.devices import processes
from fpt.errors import UserError
from fpt.runs.progress import Progress
from fpt.runs.run import Run
from fpt.sharing.card import source_of
from fpt.tasks.catalogue import rules_of

NEEDED = ("fastapi", "uvicorn")
CONNECTIONS = 256  # how many connections may be open besides those whose questions wait
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


def serve(arguments: Arguments) -> None:
    """Run `fpt serve`."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"fpt serve needs {' and '.join(missing)}: pip install 'fpt[serve]'")
    progress = Progress()
    subjects = {name or config.task.name: (run, config) for name, (run, config) in subjects_of(arguments).items()}
    for _, config in subjects.values():
        processes.alone(config)
    host, port = arguments.options.get("host", "127.0.0.1"), arguments.number("port", 8000, least=0, most=65_535)
    longest_queue, longest_body = arguments.number("queue", 256), arguments.number("max-body", 100_000)
    beams, limit = arguments.output_limits()
    from fpt.serving import app  # imported here, because its libraries may be missing

    own = app.bound(host, port)
    with progress.console.status("importing torch and transformers"):
        from fpt.serving.waiting import Waiting
        from stages.using.predict import mixed_predictor
    prompts = {name: (config, learned_from(arguments, run, config)) for name, (run, config) in subjects.items()}
    served = {
        name: app.Served(config.task.name, rules_of(config.task), _example(run, config))
        for name, (run, config) in subjects.items()
    }
    config, field = next(iter(prompts.values()))[0], arguments.options.get("prompt-field", "prompt")
    service = app.Service(config.model.name, served, field, longest_body, _own_names(host))
    with mixed_predictor(prompts, beams=beams, max_new_tokens=limit) as mixed:
        waiting = Waiting(mixed.answer, batch_size=config.train.eval_batch, longest=longest_queue)
        progress.say(f"{', '.join(served)} on {config.model.name} at {app.address(own)}; Ctrl-C ends")
        app.run(app.make(service, waiting), own, most=longest_queue + CONNECTIONS)
    progress.say(f"stopped, after {waiting.answered:,} answers in {waiting.batches:,} batches")


def _example(run: Run | None, config: RunConfig) -> str:
    """An example text, to try the prompt with."""
    return rules_of(config.task).template.text if run is None else source_of(run)


def _own_names(host: str) -> tuple[str, ...]:
    """The host names that requests may use if the address is local to this machine; empty if others can reach it."""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    return (*LOOPBACK, f"[{host}]" if ":" in host else host) if is_local else ()
