"""The verbs that use a learned prompt: score it, have it answer, take it elsewhere."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpt.cli.answer_file import Growing
from fpt.cli.arguments import Arguments
from fpt.cli.data import read_task
from fpt.cli.result_tables import print_scores
from fpt.cli.tables import present
from fpt.config import compose
from fpt.config.extras import check_quantize
from fpt.config.run_config import RunConfig
from fpt.devices import processes
from fpt.errors import UserError
from fpt.runs.atomic import replace_file
from fpt.runs.folder import LEDGER
from fpt.runs.progress import Progress
from fpt.runs.run import PROMPT, Run, open_run
from fpt.sharing import export as exports
from fpt.sharing.tokens import check_tokens
from fpt.tasks import predict_input
from fpt.tasks.catalogue import rules_of
from fpt.tasks.faults import Faults
from fpt.tasks.fields import Record
from fpt.tasks.splits import with_split
from fpt.tasks.task import Example

if TYPE_CHECKING:
    from stages.using.learned import LearnedPrompt

AT_ONCE = 32  # batches whose texts are sorted by length together


def evaluate(arguments: Arguments) -> None:
    """`fpt eval`."""
    run, config = _subject(arguments)
    check_quantize(config.engine.quantize)
    split = arguments.options.get("split")
    config = with_split(config, split)
    name = f"{config.task.name}-{config.model.name}-{split or config.task.valid_split}.jsonl"
    default = (Path("runs") if run is None else run.path) / "evals" / name
    output = _output(arguments.options.get("output", default))
    progress = Progress()
    task = read_task(config, progress)
    with progress.console.status("importing torch and transformers"):
        from stages.using.evaluate import evaluate
    scores, lines = evaluate(config, task, split, _learned(arguments, run, config), progress)
    replace_file(output, lines)
    present(arguments, {**scores, "predictions": str(output)}, print_scores)


def predict(arguments: Arguments) -> None:
    """`fpt predict`."""
    run, config = _subject(arguments)
    check_quantize(config.engine.quantize)
    beams, limit = arguments.number("beams", 1), arguments.number("max-new-tokens", 0, least=0) or None
    progress, faults = Progress(), Faults(skip=config.task.on_error == "skip")
    asked, name = _questions(arguments, config, faults), arguments.options.get("output")
    output = None if name is None else Growing(_output(name), _basis(arguments, run), _rows(arguments, config))
    with progress.console.status("importing torch and transformers"):
        from stages.using.predict import predictor
    with predictor(config, _learned(arguments, run, config), beams=beams, max_new_tokens=limit) as answer:
        for window in asked if output is None else output.unanswered(asked):
            _say_empty(window, progress)
            with progress.running():
                predictions = answer.answer(window, progress.with_bar)
            if output is not None:
                output.add(prediction.to_json() for prediction in predictions)
            for prediction in predictions if output is None else ():
                line = json.dumps(prediction.to_json(), ensure_ascii=False)
                print(line if "json" in arguments.options else prediction.answer.replace("\n", " "), flush=True)
    for note in faults.notes:
        progress.say(note)
    if output is not None:
        output.finish()
        progress.say(f"answers in {name}")


def export(arguments: Arguments) -> None:
    """`fpt export`."""
    options = arguments.options
    for name in ("run", "to"):
        if name not in options:
            raise UserError(f"{name}=…: is needed; --help says what it is")
    runs, to, progress = _runs(arguments), options["to"], Progress()
    rest: dict[str, Any] = {"number": _stage(arguments), "folder": options.get("output"), "base": options.get("base")}
    rest["repo"] = options.get("push-to-hub")
    if to != "tokens" and (len(runs) > 1 or "names" in options):
        raise UserError(f"to={to}: takes the prompt of one run, which needs no name; to=tokens takes several")
    several = to == "tokens"
    request = check_tokens(runs, _names(arguments), **rest) if several else exports.check_request(runs[0], to, **rest)
    with progress.console.status("importing torch and transformers"):
        from stages.using.export import export as write
    present(arguments, write(request, progress), _print_export)


def _runs(arguments: Arguments) -> list[str]:
    """The folders that run= names: one, or several parted by commas, which a folder's name may have too."""
    text = arguments.options["run"]
    return [text] if Path(text).expanduser().is_dir() else arguments.listed("run", "A,B")


def _names(arguments: Arguments) -> list[str] | None:
    """What names= calls the prompts, if it is given."""
    return arguments.listed("names", "A,B") if "names" in arguments.options else None


def _print_export(written: dict[str, Any]) -> None:
    print(f"{written['prompt']} is in {written['folder']}: {', '.join(written['files'])}")
    if written["url"]:
        print(f"and at {written['url']}")


def _subject(arguments: Arguments) -> tuple[Run | None, RunConfig]:
    """What is used: a finished run, or None for prompt.file; and the configuration."""
    typed = {word.partition("=")[0] for word in arguments.overrides}
    if "run" in arguments.options:
        if "prompt.file" in typed:
            raise UserError("run=… and prompt.file=… both name a prompt; give one of them")
        run = open_run(arguments.options["run"])
        _ = run.result  # refuses a run that is not finished
        return run, processes.alone(compose.load(arguments.overrides, base=run.config))
    if "prompt.file" not in typed:
        raise UserError("which prompt? give run=DIR, a run's folder, or prompt.file=FILE with model= and task=")
    if "stage" in arguments.options:
        raise UserError("stage=…: is for run=DIR; a prompt file has no stages")
    return None, processes.alone(compose.load([*arguments.overrides, "prompt.init=file"]))


def _stage(arguments: Arguments) -> int | None:
    return arguments.number("stage", 1) if "stage" in arguments.options else None


def _learned(arguments: Arguments, run: Run | None, config: RunConfig) -> "LearnedPrompt":
    from stages.using import learned

    return learned.from_file(config) if run is None else learned.from_run(run, _stage(arguments))


def _say_empty(window: list[Example], progress: Progress) -> None:
    """A model answers an empty text too, and what it says means nothing."""
    if empty := sum(not example.source.strip() for example in window):
        progress.say(
            f"{empty:,} of {len(window):,} texts {'is' if empty == 1 else 'are'} empty; the answer says nothing"
        )


def _rows(arguments: Arguments, config: RunConfig) -> Callable[[], Iterator[Record]]:
    """The rows of the table that is answered; none where it is no table."""
    file = Path(arguments.options.get("input", "")).expanduser()
    if file.suffix.lower() not in predict_input.TABLES:
        return lambda: iter(())
    return lambda: predict_input.rows_of(file, Faults(skip=config.task.on_error == "skip"))


def _questions(arguments: Arguments, config: RunConfig, faults: Faults) -> Iterator[list[Example]]:
    """What is to be answered, window by window.

    Raises:
        UserError: two things to answer, or a file that cannot be read.
    """
    rules, options = rules_of(config.task), arguments.options
    text, name, at_once = options.get("text"), options.get("input"), AT_ONCE * config.train.eval_batch
    if text is not None and name is not None:
        raise UserError("text=… and input=… both say what to answer; give one of them")
    if text is not None:
        return iter([[predict_input.raw_example(text)]])
    if name is not None:
        file = Path(name).expanduser()
        predict_input.check(file)
        return predict_input.in_groups(predict_input.examples_in(file, rules, faults), at_once)
    if sys.stdin.isatty():
        print("a text a line; Ctrl-D ends", file=sys.stderr)
    return predict_input.examples_on_stream(sys.stdin.fileno(), at_once)


def _basis(arguments: Arguments, run: Run | None) -> dict[str, Any]:
    """What answers depend on besides the questions."""
    options = {name: arguments.options.get(name) for name in ("stage", "beams", "max-new-tokens")}
    overrides = sorted(word for word in arguments.overrides if not word.startswith("task.on_error="))
    return {**options, "prompt": run and run.ledger[PROMPT], "overrides": overrides}


def _output(name: str | Path) -> Path:
    """The file that `output=` names.

    Raises:
        UserError: it cannot be written.
    """
    file = Path(name).expanduser()
    if file.is_dir():
        raise UserError(f"output={file}: is a folder; give a file")
    if file.exists() and (file.parent / LEDGER).is_file():
        raise UserError(f"output={file}: is a record of the run in that folder; give another file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={file}: its folder cannot be made ({error.strerror})") from None
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"output={file}: its folder cannot be written to; give another output=FILE")
    return file
