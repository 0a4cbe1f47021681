"""The verbs that use a learned prompt in other ways: score it, export it, answer with it over a network."""

import ipaddress
from importlib.util import find_spec
from pathlib import Path

from fpt.cli.arguments import Arguments
from fpt.cli.predict import asked, faults_of
from fpt.cli.subjects import (
    ALONE,
    launched,
    learned_from,
    names_of,
    output_file,
    read_task,
    runs_of,
    stage_of,
    subject_of,
    subjects_of,
)
from fpt.cli.tables import present, print_scores
from fpt.devices import processes
from fpt.devices.ending import one_of_several
from fpt.errors import UserError
from fpt.runs.files import replace_file
from fpt.runs.progress import Progress
from fpt.sharing.export import check_request, source_of
from fpt.tasks.catalogue import rules_of, with_split
from fpt.tasks.predict_input import by_template
from fpt.tasks.task import Example

NEEDED = ("fastapi", "uvicorn")
CONNECTIONS = 256  # how many connections may be open besides those whose questions wait
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


def evaluate(arguments: Arguments) -> None:
    """Run `fpt eval`, also as one of several processes."""
    (run, config), progress = subject_of(arguments), Progress()
    split = arguments.options.get("split")
    config = with_split(config, split)
    name = f"{config.task.name}-{config.model.name}-{split or config.task.valid_split}.jsonl"
    folder = Path("runs") if run is None else run.path
    output = output_file(arguments.options.get("output", folder / "evals" / name))
    if launched(["eval", *arguments.typed], config, progress):
        return
    with one_of_several():
        task = None if processes.is_worker() else read_task(config, progress)
        with progress.console.status("importing torch and transformers"):
            from stages.using.learned import evaluate
        prompt = learned_from(arguments, run, config)
        scores, lines = evaluate(config, lambda: task or read_task(config, progress), split, prompt, progress)
        if processes.speaks():
            replace_file(output, lines)
            present(arguments, {**scores, "predictions": str(output)}, print_scores)


def export(arguments: Arguments) -> None:
    """Run `fpt export`."""
    options = arguments.options
    for name in ("run", "to"):
        if name not in options:
            raise UserError(f"{name}=…: is needed; --help says what it is")
    paths, to, progress = runs_of(arguments), options["to"], Progress()
    if to != "tokens" and (len(paths) > 1 or "names" in options):
        raise UserError(f"to={to}: takes the prompt of one run, which needs no name; to=tokens takes several")
    for name in ("text", "input"):
        if name in options and to != "embeds":
            raise UserError(f"{name}={options[name]}: is for to=embeds, which embeds texts behind the prompt")
    number, folder = stage_of(arguments), options.get("output")
    requests = [check_request(path, to, number=number, folder=folder) for path in paths]
    configs = [request.run.config for request in requests]
    names = names_of(arguments, paths, configs) if to == "tokens" else [ALONE]
    faults, texts = faults_of(configs), iter(list[list[Example]]())
    if to == "embeds":
        if "text" not in options and "input" not in options:
            raise UserError("to=embeds: give input=FILE or text=…, what is to be embedded behind the prompt")
        windows = asked(arguments, configs[0], by_template(rules_of(configs[0].task)), faults)
        texts = ([example for _, example in window] for window in windows)
    with progress.console.status("importing torch and transformers"):
        from stages.using.export import export as write
    made = write(dict(zip(names, requests, strict=True)), progress, texts)
    present(arguments, made, lambda _: print(f"{made['prompt']} is in {made['folder']}: {', '.join(made['files'])}"))
    for note in faults.notes:
        progress.say(note)


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
    limit = arguments.output_limit()
    from fpt.serving import app  # imported here, because its libraries may be missing

    own = app.bound(host, port)
    with progress.console.status("importing torch and transformers"):
        from stages.using.learned import predictor
    prompts = {name: (config, learned_from(arguments, run, config)) for name, (run, config) in subjects.items()}
    served = {}
    for name, (run, config) in subjects.items():
        rules = rules_of(config.task)
        example = rules.template.text if run is None else source_of(run)  # to try the prompt with
        served[name] = app.Served(config.task.name, rules, example)
    config, field = next(iter(prompts.values()))[0], arguments.options.get("prompt-field", "prompt")
    service = app.Service(config.model.name, served, field, longest_body, _own_names(host))
    with predictor(prompts, max_new_tokens=limit) as model:
        waiting = app.Waiting(model.answer, batch_size=config.train.eval_batch, longest=longest_queue)
        progress.say(f"{', '.join(served)} on {config.model.name} at {app.address(own)}; Ctrl-C ends")
        app.run(app.make(service, waiting), own, most=longest_queue + CONNECTIONS)
    progress.say(f"stopped, after {waiting.answered:,} answers in {waiting.batches:,} batches")


def _own_names(host: str) -> tuple[str, ...]:
    """The host names that requests may use if the address is local to this machine; empty if others can reach it."""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    return (*LOOPBACK, f"[{host}]" if ":" in host else host) if is_local else ()
