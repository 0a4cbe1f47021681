"""The verbs that look without training: at prices, data, finished runs, this machine."""

from fpt import report as pages
from fpt.cli.arguments import Arguments
from fpt.cli.data import read_task
from fpt.cli.look_tables import print_look, print_plan, print_report
from fpt.cli.tables import present
from fpt.config import compose
from fpt.devices.ending import Failed
from fpt.runs.progress import Progress
from stages import schedule
from stages.epochs import expected


def plan(arguments: Arguments) -> None:
    """`fpt plan`."""
    config = expected(compose.load(arguments.overrides))
    stages = schedule.of(config)
    from stages.planning.decide import described

    present(arguments, described(config, stages), print_plan)


def show(arguments: Arguments) -> None:
    """`fpt show`."""
    number = arguments.number("n", 3, least=0)
    config, progress = compose.load(arguments.overrides), Progress()
    task = read_task(config, progress)
    with progress.console.status("importing torch and transformers"):
        from fpt.cli.dataset_view import look
    with progress.running():
        view = look(config, task, number, progress.with_bar)
    present(arguments, view, print_look)


def report(arguments: Arguments) -> None:
    """`fpt report`."""
    places = [*arguments.places, *arguments.overrides]  # a folder's name may hold =
    runs, page = pages.open_runs(places), pages.output_of(places, arguments.options.get("output"))
    with Progress().console.status("drawing the report"):
        written = [str(path) for path in pages.write(runs, page)]
    present(arguments, {"page": written[0], "plots": written[1:]}, lambda _: print(*written, sep="\n"))


def doctor(arguments: Arguments) -> None:
    """`fpt doctor`."""
    with Progress().console.status("looking around"):
        from fpt.cli.doctor import examine

        findings = examine()
    present(arguments, findings, print_report)
    if findings["problems"]:
        raise Failed("; ".join(findings["problems"]), 1)
