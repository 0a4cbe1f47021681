"""The verbs that only inspect: a run's plan, a task's data or a learned prompt, runs' results, this machine."""

import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from fpt import __version__
from fpt.backbones import tiny
from fpt.cli.arguments import Arguments
from fpt.cli.look_tables import print_dataset, print_plan, print_prompt
from fpt.cli.subjects import read_task, stage_of, subject_of
from fpt.cli.tables import Output, present
from fpt.config import compose
from fpt.devices.ending import Failed
from fpt.errors import UserError, reason
from fpt.runs.progress import Progress
from stages import resolve, schedule

OPTIONAL = ("bitsandbytes", "tensorboard", "peft")


def plan(arguments: Arguments) -> None:
    """Run `fpt plan`."""
    config = resolve.for_plan(compose.load(arguments.overrides))
    stages = schedule.of(config)
    from stages.planning.decide import described

    present(arguments, described(config, stages), print_plan)


def show(arguments: Arguments) -> None:
    """Run `fpt show`."""
    if "run" in arguments.options:
        _show_prompt(arguments)
        return
    if "stage" in arguments.options:
        raise UserError("stage=…: is for run=DIR, whose stages have prompts")
    number = arguments.number("n", 3, least=0)
    config, progress = compose.load(arguments.overrides), Progress()
    task = read_task(config, progress)
    with progress.console.status("importing torch and transformers"):
        from fpt.cli.dataset_view import described
    with progress.running():
        view = described(config, task, number, progress.with_bar)
    present(arguments, view, print_dataset)


def _show_prompt(arguments: Arguments) -> None:
    """Run `fpt show run=DIR`."""
    number, stage = arguments.number("n", 3), stage_of(arguments)
    run, config = subject_of(arguments)
    assert run is not None
    with Progress().console.status("importing torch and transformers"):
        from fpt.cli.prompt_view import described
    present(arguments, described(run, config, stage, number), print_prompt)


def report(arguments: Arguments) -> None:
    """Run `fpt report`."""
    from fpt.report import page as pages  # here, as no other verb needs what it imports

    places = [*arguments.places, *arguments.overrides]  # a folder's name may hold =
    runs, page = pages.open_runs(places), pages.output_of(places, arguments.options.get("output"))
    with Progress().console.status("drawing the report"):
        pages.write(runs, page)
    present(arguments, {"page": str(page)}, lambda _: print(page))


def doctor(arguments: Arguments) -> None:
    """Run `fpt doctor`."""
    with Progress().console.status("looking around"):
        findings = _examine()
    present(arguments, findings, _print_findings)
    if findings["problems"]:
        raise Failed("; ".join(findings["problems"]), 1)


def _examine() -> dict[str, Any]:
    """Collect package versions (None if not installed), a sentence for each problem, and torch's report as text."""
    needed = [re.split(r"[^\w-]", line)[0] for line in requires("fpt") or () if "extra ==" not in line]
    versions = {"fpt": __version__} | {name: _version(name) for name in (*needed, *OPTIONAL)}
    problems = [f"{name} is not installed" for name in needed if versions[name] is None]
    problems += [f"the embedded model's {name} {problem}" for name, problem in tiny.problems().items()]
    report, precision = "", None
    try:  # torch may fail to import, and that is then a problem to report
        from torch.utils.collect_env import get_pretty_env_info

        from fpt.devices.device import cpu_precision

        report, precision = get_pretty_env_info(), cpu_precision()  # type: ignore[no-untyped-call]
    except Exception as error:
        problems.append(f"torch: {reason(error)}")
    return {"versions": versions, "problems": problems, "torch": report, "precision": precision}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _print_findings(findings: dict[str, Any]) -> None:
    print(findings["torch"], findings["precision"], sep="\n\n", end="\n\n")
    print(*(f"{name} {number or 'is not installed'}" for name, number in findings["versions"].items()), sep="\n")
    Output().say("; ".join(findings["problems"]) or "nothing is broken", "bold")
