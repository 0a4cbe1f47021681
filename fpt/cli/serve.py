"""The verb that has prompts answer over a network."""

import ipaddress
from importlib.util import find_spec

from fpt.cli.arguments import MOST_BEAMS, Arguments
from fpt.cli.subjects import ALONE, Subject, learned_from, subjects_of
from fpt.devices import processes
from fpt.errors import UserError
from fpt.runs.progress import Progress
from fpt.sharing.card import source_of
from fpt.tasks.catalogue import rules_of

NEEDED = ("fastapi", "uvicorn")
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


def serve(arguments: Arguments) -> None:
    """`fpt serve`."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"fpt serve needs {' and '.join(missing)}: pip install 'fpt[serve]'")
    progress, subjects = Progress(), subjects_of(arguments)
    if ALONE in subjects:
        run, config = subjects[ALONE]
        subjects = {config.task.name: (run, config)}
    for _, config in subjects.values():
        processes.alone(config)
    host, port = arguments.options.get("host", "127.0.0.1"), arguments.number("port", 8000, least=0, most=65_535)
    if port >= 2**16:
        raise UserError(f"port={port}: expected a number below 65536; 0 takes a free one")
    beams, limit = arguments.number("beams", 1, most=MOST_BEAMS), arguments.number("max-new-tokens", 0, least=0) or None
    longest_queue, longest_body = arguments.number("queue", 256), arguments.number("max-body", 1_000_000)
    from fpt.serving.server import bound  # here, as the libraries may be missing

    own = bound(host, port)
    with progress.console.status("importing torch and transformers"):
        from stages.using.serve import Service, serve
    service = Service(
        prompts={name: (config, learned_from(arguments, run, config)) for name, (run, config) in subjects.items()},
        examples={name: _example(subject) for name, subject in subjects.items()},
        own=own,
        own_names=_own_names(host),
        field=arguments.options.get("prompt-field", "prompt"),
        longest_queue=longest_queue,
        longest_body=longest_body,
        beams=beams,
        max_new_tokens=limit,
    )
    serve(service, progress.say)


def _example(subject: Subject) -> str:
    """A text to begin with."""
    run, config = subject
    return rules_of(config.task).template.text if run is None else source_of(run)


def _own_names(host: str) -> tuple[str, ...]:
    """The hosts to be asked under, at an address that is this machine's alone; none: others reach it."""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    return (*LOOPBACK, f"[{host}]" if ":" in host else host) if is_local else ()
