"""What can be done: each verb from its words to one call, and what is printed of it.

Imports that take long stand in the functions: an error in the words must not wait for torch.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpt import compose, interrupts, launch
from fpt.config import RunConfig
from fpt.errors import UserError
from fpt.folder import replace_file
from fpt.records import PROMPT, Records, open_records
from fpt.words import Option, Words

AT_ONCE = 32  # batches whose texts are sorted by length together

if TYPE_CHECKING:
    from stages.trained import Trained


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        call: does it.
        about: one line.
        example: its words in the list of all verbs.
        usage: its words in its own help; empty: the verb alone.
        options: what it takes besides overrides.
        takes_places: whether words without = are folders or files of its.
        takes_overrides: whether it has a configuration.
    """

    call: Callable[[Words], None]
    about: str = ""
    example: str = ""
    usage: str = ""
    options: tuple[Option, ...] = ()
    takes_places: bool = False
    takes_overrides: bool = True


def _train(words: Words) -> None:
    config = compose.load(words.overrides)
    from fpt.backbones.source import config_values
    from fpt.prompts import files
    from fpt.tasks import form_of
    from fpt.tasks.kept import open_task
    from fpt.tracking import Tracker
    from stages import schedule

    tracker, stages = Tracker(), schedule.of(config)
    files.check(config.prompt, config_values(config.model)[0]["d_model"])
    if launch.is_worker():
        _share(config, words)
        return
    is_alone = not launch.is_for(config)
    form_of(config.task)
    with tracker.console.status("reading the data"):
        task = open_task(config) if is_alone else None
    with tracker.console.status("importing torch and transformers"):
        from stages import fit
        from stages.run import run
    if task is None:
        if config.engine.name == "auto":
            config, reason = fit.with_engine(config, stages)
            tracker.say(reason)
        launch.start(config, ["--json"] if words.as_json else [])
        return
    with interrupts.heard():
        _print_result(run(config, stages, lambda: task, tracker), config, words)


def _worker(words: Words) -> None:
    """One process of several: `fpt worker FILE`, which launchers call."""
    file = Path(*words.places)
    _share(launch.read_config(file), words, reports=file.parent)


def _share(config: RunConfig, words: Words, *, reports: Path | None = None) -> None:
    """Train as one of several processes."""
    with launch.reporting(config.folder, reports), interrupts.heard():
        from fpt.tasks.kept import open_task
        from fpt.tracking import Tracker
        from stages import schedule
        from stages.run import run

        result = run(config, schedule.of(config), lambda: open_task(config), Tracker())
        if os.environ["RANK"] == "0":
            _print_result(result, config, words)


def _print_result(result: dict[str, Any], config: RunConfig, words: Words) -> None:
    if words.as_json:
        _print_json(result)
    else:
        from fpt.console import print_result

        print_result(result, str(config.folder))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _plan(words: Words) -> None:
    config = compose.load(words.overrides)
    from stages import schedule

    stages = schedule.of(config)
    from stages import fit
    from stages.plan import nominal

    plan = {**nominal(config, stages), "memory": fit.plan_memory(config, stages).to_json()}
    if words.as_json:
        _print_json(plan)
    else:
        from fpt.console import print_plan

        print_plan(plan)


def _show(words: Words) -> None:
    number = words.number("n", 3, least=0)
    config = compose.load(words.overrides)
    from fpt.tasks.kept import open_task
    from fpt.tracking import Tracker

    tracker = Tracker()
    with tracker.console.status("reading the data"):
        task = open_task(config)
    with tracker.console.status("importing torch and transformers"):
        from fpt.show import look
    with tracker.running():
        shown = look(config, task, number, tracker.watch)
    if words.as_json:
        _print_json(shown)
    else:
        from fpt.console import print_look

        print_look(shown)


def _after(words: Words) -> tuple[Records | None, RunConfig]:
    """What a verb after training is about: a finished run, or prompt.file; and the configuration."""
    typed = {word.partition("=")[0] for word in words.overrides}
    if "run" in words.options:
        if "prompt.file" in typed:
            raise UserError("run=… and prompt.file=… both name a prompt; give one of them")
        records = open_records(words.options["run"])
        _ = records.result  # refuses a run that is not finished
        return records, launch.alone(compose.load(words.overrides, base=records.config))
    if "prompt.file" not in typed:
        raise UserError("which prompt? give run=DIR, a run's folder, or prompt.file=FILE with model= and task=")
    if "stage" in words.options:
        raise UserError("stage=…: is for run=DIR; a prompt file has no stages")
    return None, launch.alone(compose.load([*words.overrides, "prompt.init=file"]))


def _trained(words: Words, records: Records | None, config: RunConfig) -> "Trained":
    from stages import trained

    if records is None:
        return trained.of_file(config)
    stage = words.number("stage", 1) if "stage" in words.options else None
    return trained.of_run(records, stage)


def _eval(words: Words) -> None:
    records, config = _after(words)
    from fpt.tasks import with_split
    from fpt.tasks.kept import open_task
    from fpt.tracking import Tracker

    split = words.options.get("split")
    config = with_split(config, split)
    name = f"{config.task.name}-{config.model.name}-{split or config.task.valid_split}.jsonl"
    folder = Path("runs") if records is None else records.path
    output = _output(words, folder / "evals" / name)
    tracker = Tracker()
    with tracker.console.status("reading the data"):
        task = open_task(config)
    with tracker.console.status("importing torch and transformers"):
        from stages.evaluate import evaluate
    scored = evaluate(config, task, split, _trained(words, records, config), tracker)
    replace_file(output, scored.predictions)
    about = {**scored.about, "predictions": str(output)}
    if words.as_json:
        _print_json(about)
    else:
        from fpt.console import print_scores

        print_scores(about)


def _predict(words: Words) -> None:
    records, config = _after(words)
    from fpt import asked
    from fpt.asked import grouped
    from fpt.growing import Growing, one_line
    from fpt.tasks import form_of
    from fpt.tracking import Tracker

    text, name = words.options.get("text"), words.options.get("input")
    if text is not None and name is not None:
        raise UserError("text=… and input=… both say what to answer; give one of them")
    beams, limit = words.number("beams", 1), words.number("max-new-tokens", 0, least=0) or None
    form, tracker = form_of(config.task), Tracker()
    if name is not None:
        asked.check(Path(name).expanduser())
    prompt = str(config.prompt.file) if records is None else records.ledger[PROMPT]
    about: dict[str, Any] = {"prompt": prompt, "stage": words.options.get("stage"), "words": sorted(words.overrides)}
    about |= {"beams": beams, "max_new_tokens": limit}
    output = Growing(_output(words, Path()), about) if "output" in words.options else None
    if name is not None:
        questions = grouped(asked.of_file(Path(name).expanduser(), form), AT_ONCE * config.train.eval_batch)
    elif text is not None:
        questions = iter([[asked.of_text(text)]])
    else:
        if sys.stdin.isatty():
            tracker.say("a text a line; Ctrl-D ends")
        questions = asked.of_stream(sys.stdin.fileno(), AT_ONCE * config.train.eval_batch)
    with tracker.console.status("importing torch and transformers"):
        from stages.predict import predictor
    with predictor(config, _trained(words, records, config), beams=beams, max_new_tokens=limit) as answer:
        for window in questions if output is None else output.unanswered(questions):
            with tracker.running():
                predictions = answer.answer(window, tracker.watch)
            if output is not None:
                output.add(prediction.to_json() for prediction in predictions)
            for prediction in predictions if output is None else ():
                line = json.dumps(prediction.to_json(), ensure_ascii=False)
                print(line if words.as_json else one_line(prediction.answer), flush=True)
    if output is not None:
        output.finish()
        tracker.say(f"answers in {words.options['output']}")


def _output(words: Words, default: Path) -> Path:
    """The file that `output=` names.

    Raises:
        UserError: it cannot be written.
    """
    file = Path(words.options["output"]).expanduser() if "output" in words.options else default
    if file.is_dir():
        raise UserError(f"output={file}: is a folder; give a file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={file}: its folder cannot be made ({error.strerror})") from None
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"output={file}: its folder cannot be written to; give another output=FILE")
    return file


def _export(words: Words) -> None:
    _refuse_overrides(words)
    given = words.options
    run, to = (_required(words, name) for name in ("run", "to"))
    number = words.number("stage", 1) if "stage" in given else None
    from fpt import export, hub

    repo = given.get("push-to-hub")
    made = export.order(run, to, number=number, folder=given.get("output"), base=given.get("base"), repo=repo)
    if repo is not None:
        hub.check(repo)
    from fpt.tracking import Tracker

    tracker = Tracker()
    with tracker.console.status("importing torch and transformers"):
        from stages.export import export as write
    written = write(made, tracker)
    if words.as_json:
        _print_json(written)
    else:
        print(f"{written['prompt']} is in {written['folder']}: {', '.join(written['files'])}")
        if written["url"]:
            print(f"and at {written['url']}")


def _required(words: Words, name: str) -> str:
    if name not in words.options:
        raise UserError(f"{name}=…: is needed; --help says what it is")
    return words.options[name]


def _refuse_overrides(words: Words) -> None:
    """For a verb whose configuration is a run's."""
    if words.overrides:
        raise UserError(f"{words.overrides[0]}: unknown option; --help lists what there is")


def _report(words: Words) -> None:
    places = [*words.places, *words.overrides]  # a folder's name may hold =
    from fpt import report
    from fpt.tracking import Tracker

    runs, page = report.open_runs(places), report.output_of(places, words.options.get("output"))
    with Tracker().console.status("drawing the report"):
        written = report.write(runs, page)
    if words.as_json:
        _print_json({"page": str(written[0]), "plots": [str(path) for path in written[1:]]})
    else:
        print(*written, sep="\n")


RUN = Option("run", "the run whose prompt it is; keys that are not given are as they were there", "DIR")
STAGE = Option(
    "stage", "the prompt with which this stage of the run ended, on its partial PLM", "K", "the best, on the last"
)
VERBS = {
    "train": Verb(
        _train,
        about="train, or go on with a run that was stopped",
        example="train task=boolq",
        usage="train [key=value …] [--json]",
    ),
    "plan": Verb(
        _plan,
        about="what every stage will cost, without weights or data",
        example="plan model=t5-large schedule=cr",
        usage="plan [key=value …] [--json]",
    ),
    "show": Verb(
        _show,
        about="the task's data as the model will see them",
        example="show task=boolq n=3",
        usage="show [key=value …] [n=3] [--json]",
        options=(Option("n", "how many examples to show", "N", "3"),),
    ),
    "eval": Verb(
        _eval,
        about="score a finished run's prompt, or a prompt file, on any split",
        example="eval run=runs/boolq-tiny-cr-s0",
        usage="eval run=DIR | prompt.file=FILE [split=SPLIT] [stage=K] [output=FILE] [key=value …] [--json]",
        options=(
            RUN,
            STAGE,
            Option(
                "split", "train, a validation split or a test split of the task", "SPLIT", "the run's validation split"
            ),
            Option("output", "where the predictions go", "FILE", "DIR/evals/TASK-MODEL-SPLIT.jsonl"),
        ),
    ),
    "predict": Verb(
        _predict,
        about="answer a text, a file's records or lines, or standard input line by line",
        example="predict run=DIR text='…'",
        usage="predict run=DIR | prompt.file=FILE [text=TEXT | input=FILE] [output=FILE] [key=value …] [--json]",
        options=(
            RUN,
            STAGE,
            Option("text", "the source as the model is to see it", "TEXT"),
            Option(
                "input",
                ".jsonl, .csv, .tsv or .parquet with the fields of the task's template, or the whole source as 'text';"
                " .txt with a source a line",
                "FILE",
                "standard input, a source a line",
            ),
            Option("output", ".jsonl or .txt; one that was left half goes on", "FILE", "standard output"),
            Option("beams", "of beam search", "N", "1: greedy"),
            Option("max-new-tokens", "no output is longer", "N", "as in the run"),
        ),
    ),
    "export": Verb(
        _export,
        about="a run's prompt for PEFT, numpy or transformers",
        example="export run=DIR --to peft",
        usage="export run=DIR --to peft|npy|hf [stage=K] [output=DIR] [--push-to-hub OWNER/NAME] [--json]",
        options=(
            Option("run", "the folder of a finished run", "DIR"),
            Option(
                "to",
                "peft: an adapter's folder; npy: an array, as google-research/prompt-tuning writes it; hf: the stage's"
                " model as a Hugging Face checkpoint, with the prompt beside it",
                "FORMAT",
            ),
            Option(
                "stage", "the prompt with which this stage ended, and its model", "K", "the best prompt, last stage"
            ),
            Option("output", "a new folder", "DIR", "export/FORMAT in the run's folder, export/FORMAT-stageK"),
            Option(
                "base",
                "to=peft and npy: the model that the prompt goes before; must be given for a partial PLM, which to=hf"
                " writes",
                "MODEL",
                "the run's",
            ),
            Option("push-to-hub", "send the folder there too; made if need be", "OWNER/NAME"),
        ),
        takes_overrides=False,
    ),
    "report": Verb(
        _report,
        about="one HTML page and plots of finished or unfinished runs",
        example="report runs/boolq-tiny-cr-s0",
        usage="report DIR… [output=FILE.html] [--json]",
        options=(
            Option(
                "output",
                "the page; its plots go into a folder FILE-plots beside it",
                "FILE.html",
                "report.html in the run's folder, or beside the first of several",
            ),
        ),
        takes_places=True,
        takes_overrides=False,
    ),
}
OF_LAUNCHERS = {"worker": Verb(_worker, takes_places=True)}  # called by processes, not by people
