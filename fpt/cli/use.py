"""The verbs that use a learned prompt: score it, answer texts with it, export it."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpt.cli import answer_file
from fpt.cli.arguments import Arguments
from fpt.cli.subjects import (
    ALONE,
    launched,
    learned_from,
    names_of,
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
from fpt.runs.files import replace_file, replaced_file, try_writing
from fpt.runs.folder import LEDGER
from fpt.runs.progress import Progress
from fpt.sharing.export import check_request
from fpt.tasks import file_formats, predict_input
from fpt.tasks.catalogue import rules_of
from fpt.tasks.fields import Faults, Record
from fpt.tasks.splits import with_split, without_training_file
from fpt.tasks.task import Example

if TYPE_CHECKING:
    from fpt.training.prediction import MixedPredictor, Prediction

BATCHES_IN_WINDOW = 32  # the texts of so many batches are sorted by length together


def evaluate(arguments: Arguments) -> None:
    """Run `fpt eval`, also as one of several processes."""
    (run, config), progress = subject_of(arguments), Progress()
    split = arguments.options.get("split")
    config = without_training_file(with_split(config, split), split, run)
    name = f"{config.task.name}-{config.model.name}-{split or config.task.valid_split}.jsonl"
    folder = Path("runs") if run is None else run.path
    output = _output(arguments.options.get("output", folder / "evals" / name))
    if launched(["eval", *arguments.typed], config, progress):
        return
    with one_of_several():
        task = None if processes.is_worker() else read_task(config, progress)
        with progress.console.status("importing torch and transformers"):
            from stages.using.evaluate import evaluate
        prompt = learned_from(arguments, run, config)
        scores, lines = evaluate(config, lambda: task or read_task(config, progress), split, prompt, progress)
        if processes.speaks():
            replace_file(output, lines)
            present(arguments, {**scores, "predictions": str(output)}, print_scores)


def predict(arguments: Arguments) -> None:
    """Run `fpt predict`, also as one of several processes."""
    subjects, progress = subjects_of(arguments), Progress()
    configs = {name: config for name, (_, config) in subjects.items()}
    config = next(iter(configs.values()))
    beams, limit = arguments.output_limits()
    faults, to_example = Faults(skip=_skips(configs.values())), _to_example(arguments, configs)
    windows = _questions(arguments, config, to_example, faults)
    file, columns = None, list[str]()
    if "output" in arguments.options and processes.speaks():
        file = _output(arguments.options["output"])
        columns = _checked_columns(file, arguments, config, to_example, Faults(skip=faults.skip))
    if launched(["predict", *arguments.typed], config, progress):
        return
    with one_of_several():
        with progress.console.status("importing torch and transformers"):
            from stages.using.predict import mixed_predictor, windows_of_main
        prompts = {name: (config, learned_from(arguments, run, config)) for name, (run, config) in subjects.items()}
        with mixed_predictor(prompts, beams=beams, max_new_tokens=limit) as mixed:
            ending = file.suffix if file else ".jsonl" if "json" in arguments.options else ".txt"
            rows = _rows(arguments, config, to_example, Faults(skip=faults.skip))
            answers = _answers(mixed, windows_of_main(windows), progress)
            _write(answer_file.in_lines(ending, answers, columns, rows), file)
        for note in faults.notes:
            progress.say(note)
        if file is not None:
            progress.say(f"answers in {arguments.options['output']}")


def _answers(mixed: "MixedPredictor", windows: Iterable[list[Example]], progress: Progress) -> Iterator["Prediction"]:
    """Answer window by window, so that few texts and answers are in memory at once."""
    for window in windows:
        _say_empty(window, progress)
        with progress.running():
            predictions = mixed.answer(window, progress.with_bar)
        yield from predictions


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
    number, folder, base = stage_of(arguments), options.get("output"), options.get("base")
    requests = [check_request(path, to, number=number, folder=folder, base=base) for path in paths]
    configs = [request.run.config for request in requests]
    names = names_of(arguments, paths, configs) if to == "tokens" else [ALONE]
    faults, texts = Faults(skip=_skips(configs)), iter(list[list[Example]]())
    if to == "embeds":
        if "text" not in options and "input" not in options:
            raise UserError("to=embeds: give input=FILE or text=…, what is to be embedded behind the prompt")
        texts = _questions(arguments, configs[0], predict_input.by_template(rules_of(configs[0].task)), faults)
    with progress.console.status("importing torch and transformers"):
        from stages.using.export import export as write
    present(arguments, write(dict(zip(names, requests, strict=True)), progress, texts), _print_export)
    for note in faults.notes:
        progress.say(note)


def _print_export(written: dict[str, Any]) -> None:
    print(f"{written['prompt']} is in {written['folder']}: {', '.join(written['files'])}")


def _say_empty(window: list[Example], progress: Progress) -> None:
    """Warn of empty texts: a model answers them too, but its answers mean nothing."""
    if empty := sum(not example.source.strip() for example in window):
        progress.say(
            f"{empty:,} of {len(window):,} texts {'is' if empty == 1 else 'are'} empty; the answer says nothing"
        )


def _skips(configs: Iterable[RunConfig]) -> bool:
    """Whether records that cannot be used are skipped; with several prompts, only if all tasks skip them."""
    return all(config.task.on_error == "skip" for config in configs)


def _rows(
    arguments: Arguments, config: RunConfig, to_example: predict_input.ToExample, faults: Faults
) -> Iterator[Record]:
    """Read the input file's records; none if there is no file."""
    if "input" in arguments.options:
        file = Path(arguments.options["input"]).expanduser()
        rows = predict_input.rows_and_examples(file, to_example, faults, config.task.columns)
        yield from (row for row, _ in rows)


def _checked_columns(
    output: Path, arguments: Arguments, config: RunConfig, to_example: predict_input.ToExample, faults: Faults
) -> list[str]:
    """Check the file of answers, then all of the input's records; returns the input's columns, if it is a table.

    A bad record ends the command now, rather than after hours of answers that would be lost.
    """
    rows = _rows(arguments, config, to_example, faults)
    first = next(rows, {})
    is_table = file_formats.ending(arguments.options.get("input", "")) in predict_input.TABLES
    columns = list(first) if is_table else []
    answer_file.check_new(output, columns)
    deque(rows, maxlen=0)
    return columns


def _to_example(arguments: Arguments, configs: dict[str, RunConfig]) -> predict_input.ToExample:
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


def _questions(
    arguments: Arguments, config: RunConfig, to_example: predict_input.ToExample, faults: Faults
) -> Iterator[list[Example]]:
    """The examples to answer, window by window."""
    options, size = arguments.options, BATCHES_IN_WINDOW * config.train.eval_batch
    text, name = options.get("text"), options.get("input")
    if text is not None and name is not None:
        raise UserError("text=… and input=… both say what to answer; give one of them")
    if text is not None:
        return iter([[predict_input.raw_example(text)]])
    if name is not None:
        file = Path(name).expanduser()
        predict_input.check_input(file)
        rows = predict_input.rows_and_examples(file, to_example, faults, config.task.columns)
        return predict_input.in_groups((example for _, example in rows), size)
    if sys.stdin.isatty() and processes.speaks() and not processes.must_be_launched(config):
        print("a text a line; Ctrl-D ends", file=sys.stderr)
    return predict_input.examples_on_stream(sys.stdin.fileno(), size)


def _output(name: str | Path) -> Path:
    """The file that `output=` names; refuse one that cannot be written or belongs to a run."""
    file = Path(name).expanduser()
    if file.is_dir():
        raise UserError(f"output={file}: is a folder; give a file")
    if file.exists() and (file.parent / LEDGER).is_file():
        raise UserError(f"output={file}: is a record of the run in that folder; give another file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try_writing(file.parent)
    except OSError as error:
        raise UserError(f"output={file}: cannot be written ({error.strerror}); give another output=FILE") from None
    return file
