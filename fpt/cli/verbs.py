"""What can be done: a row for each verb. Each file of the package has some, from their arguments to one call.

What imports torch is imported in their functions, by the lines that setup.cfg lists: an error must not wait for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fpt.cli import look, serve, train, use
from fpt.cli.arguments import Arguments, Option


@dataclass(frozen=True)
class Verb:
    """What can be done, and how it is typed.

    Attributes:
        example: its words in the list of all verbs.
        usage: what goes between the verb and --json, in its own help.
        options: what it takes besides overrides.
        takes_places: whether words without = are folders or files of its.
        takes_overrides: whether it has a configuration.
    """

    call: Callable[[Arguments], None]
    summary: str = ""
    example: str = ""
    usage: str = ""
    options: tuple[Option, ...] = ()
    takes_places: bool = False
    takes_overrides: bool = True


RUN = Option("run", "the run whose prompt it is; keys that are not given are as they were there", "DIR")
STAGE = Option(
    "stage", "the prompt with which this stage of the run ended, on its partial PLM", "K", "the best, on the last"
)
NAMES = Option("names", "what the prompts of several runs are called, in the order of the runs", "A,B", "tasks' names")

VERBS = {
    "train": Verb(
        train.train,
        summary="train, or go on with a run that was stopped",
        example="train task=boolq",
        usage="[-m] [key=value …]",
        options=(
            Option("multirun", "a run for every combination of values, as in optim.lr=0.1,0.3 seed=0,1", short="m"),
        ),
    ),
    "compare": Verb(
        train.compare,
        summary="schedules against vanilla prompt tuning, or kinds of prompts: score, FLOPs, time, gain at equal FLOPs",
        example="compare task=boolq seeds=0,1",
        usage="[key=value …] [schedules=pt,cr | prompts=soft,late] [seeds=0,1]",
        options=(
            Option("schedules", "files of conf/schedule, or FILE.yaml; pt is added to them", "A,B", "pt,ld,fr,cr"),
            Option(
                "prompts",
                "kinds of prompts in place of schedules: files of conf/prompt, or late prompts by generator (npg, appg,"
                " mppg, none); the full model, if no schedule= is given",
                "A,B",
                "schedules are compared",
            ),
            Option("seeds", "a run of every schedule for each; run.dir=DIR keeps them in DIR", "N,M", "0,1,2"),
        ),
    ),
    "plan": Verb(
        look.plan,
        summary="what every stage will cost, without weights or data",
        example="plan model=t5-large schedule=cr",
        usage="[key=value …]",
    ),
    "show": Verb(
        look.show,
        summary="the task's data as the model will see them",
        example="show task=boolq n=3",
        usage="[key=value …] [n=3]",
        options=(Option("n", "how many examples to show", "N", "3"),),
    ),
    "eval": Verb(
        use.evaluate,
        summary="score a finished run's prompt, or a prompt file, on any split",
        example="eval run=runs/boolq-tiny-cr-s0",
        usage="run=DIR | prompt.file=FILE [split=SPLIT] [stage=K] [output=FILE] [key=value …]",
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
        use.predict,
        summary="answer a text, a file's records or lines, or standard input line by line",
        example="predict run=DIR text='…'",
        usage="run=DIR[,DIR…] | prompt.file=FILE [text=TEXT | input=FILE] [output=FILE] [key=value …]",
        options=(
            replace(RUN, help=f"{RUN.help}; several of one model answer together, each the records that name it"),
            NAMES,
            Option("prompt-field", "of several runs' records: the field that names the prompt", "FIELD", "prompt"),
            STAGE,
            Option("text", "the source as the model is to see it", "TEXT"),
            Option(
                "input",
                ".jsonl, .csv, .tsv or .parquet with the fields of the task's template, or the whole source as 'text';"
                " .txt with a source a line",
                "FILE",
                "standard input, a source a line",
            ),
            Option(
                "output",
                ".jsonl, .txt, or .csv or .tsv with the input's columns; one that was left half goes on",
                "FILE",
                "standard output",
            ),
            Option("beams", "of beam search", "N", "1: greedy"),
            Option("max-new-tokens", "no output is longer", "N", "as in the run"),
        ),
    ),
    "serve": Verb(
        serve.serve,
        summary="prompts that answer over a network, with a page to try them",
        example="serve run=DIR",
        usage="run=DIR[,DIR…] | prompt.file=FILE [port=8000] [host=127.0.0.1] [key=value …]",
        options=(
            replace(RUN, help=f"{RUN.help}; several of one model answer together, each the records that name it"),
            NAMES,
            Option("prompt-field", "the field of a record that names its prompt", "FIELD", "prompt"),
            STAGE,
            Option("host", "the address to answer at; 0.0.0.0: at every one of this machine's", "HOST", "127.0.0.1"),
            Option("port", "0 takes a free one", "N", "8000"),
            Option("queue", "how many questions may wait before others are refused", "N", "256"),
            Option("max-body", "bytes of a request's body", "N", "1000000"),
            Option("beams", "of beam search", "N", "1: greedy"),
            Option("max-new-tokens", "no output is longer", "N", "as in the run"),
        ),
    ),
    "export": Verb(
        use.export,
        summary="a run's prompt for fpt, PEFT, numpy, transformers or vLLM, or prompts as tokens of one model",
        example="export run=DIR --to peft",
        usage="run=DIR[,DIR…] --to fpt|peft|npy|hf|tokens|embeds [stage=K] [output=DIR] [--push-to-hub OWNER/NAME]",
        options=(
            Option("run", "the folder of a finished run; with to=tokens several, of one model", "DIR[,DIR…]"),
            Option(
                "to",
                "fpt: as fpt reads it, the one for late prompts; peft: an adapter's folder; npy: an array, as"
                " google-research/prompt-tuning writes it; hf: the stage's model as a Hugging Face checkpoint, with the"
                " prompt beside it; tokens: that checkpoint with each run's prompt as added tokens, for which"
                " <prompt:NAME> stands in a text; embeds: of decoder-only models, prompt and texts as vLLM's"
                " prompt_embeds",
                "FORMAT",
            ),
            Option(
                "names", "with to=tokens: what the prompts are called, in the order of their runs", "A[,B…]", "tasks"
            ),
            Option("input", "with to=embeds: the texts, as for fpt predict", "FILE"),
            Option("text", "with to=embeds: one text", "TEXT"),
            STAGE,
            Option("output", "a new folder", "DIR", "export/FORMAT in the run's folder, export/FORMAT-stageK"),
            Option(
                "base",
                "not with to=hf and to=tokens: the model that the prompt goes before; must be given for a partial PLM,"
                " which to=hf writes",
                "MODEL",
                "the run's",
            ),
            Option("push-to-hub", "send the folder there too; made if need be", "OWNER/NAME"),
        ),
        takes_overrides=False,
    ),
    "report": Verb(
        look.report,
        summary="one HTML page and plots of finished or unfinished runs",
        example="report runs/boolq-tiny-cr-s0",
        usage="DIR… [output=FILE.html]",
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
    "doctor": Verb(
        look.doctor,
        summary="versions, devices, and what is broken: for a bug report",
        example="doctor",
        takes_overrides=False,
    ),
}
QUIET = Option("quiet", "print no result")
OF_LAUNCHERS = {"worker": Verb(train.worker, takes_places=True, options=(QUIET,))}  # called by processes, not by people
