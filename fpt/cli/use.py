"""The verbs that use a learned prompt: score it, have it answer, take it elsewhere."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpt.cli import tables
from fpt.cli.arguments import Words
from fpt.cli.verb import present, refuse_overrides
from fpt.config import compose
from fpt.config.schema import RunConfig
from fpt.devices import launch
from fpt.errors import UserError
from fpt.runs.atomic import replace_file
from fpt.runs.folder import LEDGER
from fpt.runs.run import PROMPT, Run, open_run

if TYPE_CHECKING:
    from fpt.tasks.task import Example, TaskRules
    from stages.using.learned import LearnedPrompt

AT_ONCE = 32  # batches whose texts are sorted by length together


def evaluate(words: Words) -> None:
    """`fpt eval`."""
    records, config = _subject(words)
    from fpt.data.example_cache import open_task
    from fpt.runs.progress import Progress
    from fpt.tasks.splits import with_split

    split = words.options.get("split")
    config = with_split(config, split)
    name = f"{config.task.name}-{config.model.name}-{split or config.task.valid_split}.jsonl"
    folder = Path("runs") if records is None else records.path
    output = _output(words, folder / "evals" / name)
    progress = Progress()
    with progress.console.status("reading the data"):
        task = open_task(config)
    with progress.console.status("importing torch and transformers"):
        from stages.using.evaluate import evaluate
    scored = evaluate(config, task, split, _trained(words, records, config), progress)
    replace_file(output, scored.predictions)
    present(words, {**scored.about, "predictions": str(output)}, tables.print_scores)


def predict(words: Words) -> None:
    """`fpt predict`."""
    records, config = _subject(words)
    from fpt.runs.answer_file import Growing, one_line
    from fpt.runs.progress import Progress

    beams, limit = words.number("beams", 1), words.number("max-new-tokens", 0, least=0) or None
    progress, questions = Progress(), _questions(words, config)
    output = Growing(_output(words, Path()), _about(words, records)) if "output" in words.options else None
    with progress.console.status("importing torch and transformers"):
        from stages.using.predict import predictor
    with predictor(config, _trained(words, records, config), beams=beams, max_new_tokens=limit) as answer:
        for window in questions if output is None else output.unanswered(questions):
            with progress.running():
                predictions = answer.answer(window, progress.with_bar)
            if output is not None:
                output.add(prediction.to_json() for prediction in predictions)
            for prediction in predictions if output is None else ():
                line = json.dumps(prediction.to_json(), ensure_ascii=False)
                print(line if words.as_json else one_line(prediction.answer), flush=True)
    if output is not None:
        output.finish()
        progress.say(f"answers in {words.options['output']}")


def export(words: Words) -> None:
    """`fpt export`."""
    refuse_overrides(words)
    given = words.options
    run, to = (_required(words, name) for name in ("run", "to"))
    number = words.number("stage", 1) if "stage" in given else None
    from fpt.sharing import export, hub

    repo = given.get("push-to-hub")
    made = export.check_request(run, to, number=number, folder=given.get("output"), base=given.get("base"), repo=repo)
    if repo is not None:
        hub.check(repo)
    from fpt.runs.progress import Progress

    progress = Progress()
    with progress.console.status("importing torch and transformers"):
        from stages.using.export import export as write
    present(words, write(made, progress), _print_export)


def _print_export(written: dict[str, Any]) -> None:
    print(f"{written['prompt']} is in {written['folder']}: {', '.join(written['files'])}")
    if written["url"]:
        print(f"and at {written['url']}")


def _subject(words: Words) -> tuple[Run | None, RunConfig]:
    """What is used: a finished run, or None for prompt.file; and the configuration."""
    typed = {word.partition("=")[0] for word in words.overrides}
    if "run" in words.options:
        if "prompt.file" in typed:
            raise UserError("run=… and prompt.file=… both name a prompt; give one of them")
        records = open_run(words.options["run"])
        _ = records.result  # refuses a run that is not finished
        return records, launch.alone(compose.load(words.overrides, base=records.config))
    if "prompt.file" not in typed:
        raise UserError("which prompt? give run=DIR, a run's folder, or prompt.file=FILE with model= and task=")
    if "stage" in words.options:
        raise UserError("stage=…: is for run=DIR; a prompt file has no stages")
    return None, launch.alone(compose.load([*words.overrides, "prompt.init=file"]))


def _trained(words: Words, records: Run | None, config: RunConfig) -> "LearnedPrompt":
    from stages.using import learned

    if records is None:
        return learned.from_file(config)
    return learned.from_run(records, words.number("stage", 1) if "stage" in words.options else None)


def _questions(words: Words, config: RunConfig) -> "Iterator[list[Example]]":
    """What is to be answered, window by window.

    Raises:
        UserError: two things to answer, or a file that cannot be read.
    """
    from fpt.tasks import predict_input
    from fpt.tasks.catalogue import rules_of

    rules: TaskRules = rules_of(config.task)
    text, name, at_once = words.options.get("text"), words.options.get("input"), AT_ONCE * config.train.eval_batch
    if text is not None and name is not None:
        raise UserError("text=… and input=… both say what to answer; give one of them")
    if text is not None:
        return iter([[predict_input.raw_example(text)]])
    if name is not None:
        file = Path(name).expanduser()
        predict_input.check(file)
        return predict_input.in_groups(predict_input.examples_in(file, rules), at_once)
    if sys.stdin.isatty():
        print("a text a line; Ctrl-D ends", file=sys.stderr)
    return predict_input.examples_on_stream(sys.stdin.fileno(), at_once)


def _about(words: Words, records: Run | None) -> dict[str, Any]:
    """What answers depend on besides the questions."""
    options = {name: words.options.get(name) for name in ("stage", "beams", "max-new-tokens")}
    return {**options, "prompt": records and records.ledger[PROMPT], "overrides": sorted(words.overrides)}


def _output(words: Words, default: Path) -> Path:
    """The file that `output=` names.

    Raises:
        UserError: it cannot be written.
    """
    file = Path(words.options["output"]).expanduser() if "output" in words.options else default
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


def _required(words: Words, name: str) -> str:
    if name not in words.options:
        raise UserError(f"{name}=…: is needed; --help says what it is")
    return words.options[name]
