"""The verbs that use a learned prompt: score it, answer with it, also over a network, export it."""

import csv
import io
import ipaddress
import json
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from fpt.cli.arguments import (
    ALONE,
    Arguments,
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
from fpt.config.run_config import RunConfig
from fpt.devices import processes
from fpt.devices.ending import one_of_several
from fpt.errors import UserError
from fpt.runs.files import replace_file, replaced_file
from fpt.runs.progress import Progress
from fpt.sharing.export import check_request, source_of
from fpt.tasks import file_formats, predict_input
from fpt.tasks.catalogue import rules_of, with_split
from fpt.tasks.fields import Faults, Record, as_text
from fpt.tasks.predict_input import ToExample, by_template
from fpt.tasks.task import Example

if TYPE_CHECKING:
    from fpt.training.prediction import Prediction, Predictor


BATCHES_IN_WINDOW = 32  # the texts of so many batches are sorted by length together
JSON, TEXT = ".jsonl", ".txt"
TABLES = (".csv", ".tsv")
ENDINGS = (JSON, TEXT, *TABLES)
ADDED = ("prediction", "score")  # the columns that a table of answers has besides the input's
Asked = tuple[Record, Example]  # a record of the input file, or an empty one, and what it asks
NEEDED = ("fastapi", "uvicorn")
CONNECTIONS = 256  # how many connections may be open besides those whose questions wait
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


def predict(arguments: Arguments) -> None:
    """Run `fpt predict`, also as one of several processes."""
    subjects, progress = subjects_of(arguments), Progress()
    configs = {name: config for name, (_, config) in subjects.items()}
    config = next(iter(configs.values()))
    limit = arguments.output_limit()
    faults, to_example = faults_of(configs.values()), _to_example(arguments, configs)
    windows = asked(arguments, config, to_example, faults)
    file = None
    if "output" in arguments.options and processes.speaks():
        file = output_file(arguments.options["output"])
        _check(file, _in_file(arguments, config, to_example, faults_of(configs.values())))
    if launched(["predict", *arguments.typed], config, progress):
        return
    with one_of_several():
        with progress.console.status("importing torch and transformers"):
            from stages.using.learned import predictor, windows_of_main
        prompts = {name: (config, learned_from(arguments, run, config)) for name, (run, config) in subjects.items()}
        with predictor(prompts, max_new_tokens=limit) as model:
            ending = file.suffix if file else JSON if "json" in arguments.options else TEXT
            _write(in_lines(ending, _answers(model, windows_of_main(windows), progress)), file)
        for note in faults.notes:
            progress.say(note)
        if file is not None:
            progress.say(f"answers in {arguments.options['output']}")


def faults_of(configs: Iterable[RunConfig]) -> Faults:
    """Collects records that cannot be used; they are skipped if the tasks of all prompts skip theirs."""
    return Faults(skip=all(config.task.on_error == "skip" for config in configs))


def _to_example(arguments: Arguments, configs: Mapping[str, RunConfig]) -> ToExample:
    """The function that makes an example of a record; with several prompts, a field of the record names its prompt."""
    options, rules = arguments.options, {name: rules_of(config.task) for name, config in configs.items()}
    if len(rules) == 1:
        if field := options.get("prompt-field"):
            raise UserError(f"prompt-field={field}: is for run=A,B, several runs; one run answers all")
        return predict_input.by_template(rules[ALONE])
    field = options.get("prompt-field", "prompt")
    needed = f"records with a field '{field}'"
    if "input" not in options:
        raise UserError(f"run={options['run']}: which prompt is a text for? give input=FILE, {needed}")
    if file_formats.ending(options["input"]) == predict_input.LINES:
        raise UserError(f"input={options['input']}: lines cannot name one of several prompts; give {needed}")
    return predict_input.by_prompt(rules, field)


def asked(arguments: Arguments, config: RunConfig, to_example: ToExample, faults: Faults) -> Iterator[list[Asked]]:
    """What text=, input= or standard input asks, window by window, so that little of it is in memory at once."""
    options, size = arguments.options, BATCHES_IN_WINDOW * config.train.eval_batch
    if "text" in options and "input" in options:
        raise UserError("text=… and input=… both say what to answer; give one of them")
    if "text" in options:
        return iter([[({}, predict_input.raw_example(options["text"]))]])
    if "input" in options:
        predict_input.check_input(Path(options["input"]).expanduser())
        records = _in_file(arguments, config, to_example, faults)
        return iter(lambda: list(islice(records, size)), [])
    if sys.stdin.isatty() and processes.speaks() and not processes.must_be_launched(config):
        print("a text a line; Ctrl-D ends", file=sys.stderr)
    return ([({}, example)] for example in predict_input.examples_on_stream(sys.stdin.buffer))


def _in_file(arguments: Arguments, config: RunConfig, to_example: ToExample, faults: Faults) -> Iterator[Asked]:
    """Read the records of input=FILE; none if it is not given."""
    if "input" in arguments.options:
        file = Path(arguments.options["input"]).expanduser()
        yield from predict_input.rows_and_examples(file, to_example, faults, config.task.columns)


def _check(output: Path, records: Iterator[Asked]) -> None:
    """Check the file of answers, then all records: a bad one would end the command after hours, its answers lost."""
    first, _ = next(records, ({}, None))
    if output.suffix not in ENDINGS:
        raise UserError(f"output={output}: the name must end in {' or '.join(ENDINGS)}")
    if output.exists():
        raise UserError(f"output={output}: exists already; give another output=FILE, or remove it")
    if output.suffix in TABLES and (taken := [name for name in ADDED if name in first]):
        raise UserError(f"output={output}: the input has a column '{taken[0]}' already; give output=FILE.jsonl")
    deque(records, maxlen=0)


def _answers(
    model: "Predictor", windows: Iterable[list[Asked]], progress: Progress
) -> Iterator[tuple[Record, "Prediction"]]:
    """Answer window by window; an empty text is answered too, but its answer means nothing."""
    for window in windows:
        records, examples = zip(*window, strict=True)
        if empty := sum(not example.source.strip() for example in examples):
            are = "is" if empty == 1 else "are"
            progress.say(f"{empty:,} of {len(window):,} texts {are} empty; the answer says nothing")
        with progress.running():
            predictions = model.answer(examples, progress.with_bar)
        yield from zip(records, predictions, strict=True)


def in_lines(ending: str, answers: Iterable[tuple[Record, "Prediction"]]) -> Iterator[str]:
    """Format each answer in the format with this ending; a table has the fields of the first record as columns."""
    columns: list[str] = []
    for record, answer in answers:
        if ending == JSON:
            yield json.dumps(answer.to_json(), ensure_ascii=False)
        elif ending == TEXT:
            yield answer.answer.replace("\n", " ")  # one line for each answer
        else:
            record = record or {"input": answer.input}
            if not columns:
                columns = list(record)
                yield _row(ending, [*columns, *ADDED])
            cells = ["" if record.get(name) is None else as_text(record[name]) for name in columns]
            yield _row(ending, [*cells, answer.answer, f"{answer.score:.6g}"])


def _row(ending: str, cells: Sequence[str]) -> str:
    """Format a row of a table; in a TSV, tabs and line ends within cells become spaces."""
    if ending == ".tsv":
        return "\t".join(re.sub(r"[\t\r\n]", " ", cell) for cell in cells)
    csv.writer(text := io.StringIO()).writerow(cells)  # with line ends of its own, so that it quotes those in cells
    return text.getvalue().removesuffix("\r\n")


def _write(lines: Iterator[str], file: Path | None) -> None:
    """Write lines to a new file, or print each as soon as it is there; only the main process does."""
    if not processes.speaks():
        deque(lines, maxlen=0)
    elif file is None:
        for line in lines:
            print(line, flush=True)
    else:
        with replaced_file(file) as stream:
            stream.writelines(f"{line}\n".encode() for line in lines)


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
        if configs[0].task.of:
            one = f"train one task from it first, by task=NAME prompt.init=file prompt.file={paths[0]}"
            raise UserError(f"to=embeds: is for the texts of one task, and this prompt is of several; {one}")
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
