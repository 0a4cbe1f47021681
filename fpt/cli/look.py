"""The verbs that only inspect: a run's plan, a task's data or a learned prompt, runs' results, this machine."""

import re
from collections.abc import Sequence
from importlib.metadata import distributions, requires
from itertools import groupby
from typing import Any

from packaging.utils import canonicalize_name

from fpt import __version__
from fpt.backbones import tiny
from fpt.cli.arguments import Arguments, read_task, stage_of, subject_of
from fpt.cli.tables import Output, in_bytes, present, say_share, stage_cells
from fpt.config import compose
from fpt.config.mixture import tasks_of
from fpt.devices.ending import Failed
from fpt.errors import UserError, reason
from fpt.runs.progress import Progress
from fpt.units import amount
from stages import resolve, schedule

SIZES = ("weights", "activations", "rest", "total")
LESS = (
    "train.micro_batch=auto, train.activation_checkpointing=true, engine.dtype=bfloat16, engine.quantize=int8 or nf4,"
    " engine=deepspeed over more processes or with engine.offload=cpu, and a smaller model take less"
)
OPTIONAL = ("bitsandbytes", "tensorboard", "peft")


def plan(arguments: Arguments) -> None:
    """Run `fpt plan`."""
    config = resolve.for_plan(compose.load(arguments.overrides))
    stages = schedule.of(config)
    from stages.planning.decide import described

    present(arguments, described(config, stages), print_plan)


def print_plan(plan: dict[str, Any]) -> None:
    """Print every stage's shape, size and FLOPs, and the sum compared with vanilla prompt tuning."""
    output, stages = Output(), list(enumerate(plan["stages"], 1))
    output.say(
        f"{plan['task']} on {plan['model']}, schedule {plan['schedule']}: {plan['updates']:,} updates of"
        f" {plan['batch_size']} examples, {plan['source_length']} source tokens, prompt included,"
        f" and {plan['target_length']} target tokens"
    )
    output.show(
        {
            **stage_cells(number, stage),
            "parameters": amount(stage["parameters"]),
            "weights": in_bytes(stage["weight_bytes"]),
            "FLOPs/update": amount(stage["flops_per_update"]),
            "FLOPs": amount(stage["flops"]),
            "of full": f"{stage['flops_ratio']:.1%}",
        }
        for number, stage in stages
    )
    for number, blocks in enumerate(plan["blocks"], 1):
        if blocks:
            parts = (f"{stack} blocks {_ranges(kept)}" for stack, kept in blocks.items())
            output.say(f"stage {number} keeps {' and '.join(parts)}")
    say_share(output, plan)
    output.say(f"{plan['trainable_parameters']:,} trainable parameters; {plan['learning']}")
    if validation := plan["validation"]:
        output.say(
            f"validation: {validation['times']:,} times in training, {validation['examples']:,} outputs in all,"
            f" {amount(validation['flops'])}FLOPs, {validation['share']:.1%} of the run's"
        )
    if states := plan["states"]:
        output.say(f"\n{states['sentence']}")
    _print_memory(output, plan)


def _ranges(numbers: Sequence[int]) -> str:
    """Format ascending numbers, as in 0–2, 5."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _print_memory(output: Output, plan: dict[str, Any]) -> None:
    checkpointing = "on" if plan["activation_checkpointing"] else "off"
    processes = f"{plan['processes']} process{'es' if plan['processes'] > 1 else ''}"
    rows: list[dict[str, str]] = []
    packed = "" if plan["quantize"] == "none" else f" weights packed as {plan['quantize']},"
    output.say(
        f"\nmemory of one device, engine {plan['engine']}, {processes},{packed}"
        f" {plan['micro_batch']} examples at once, activation checkpointing {checkpointing}"
    )
    for number, stage in enumerate(plan["stages"], 1):
        sizes = {key: in_bytes(stage[key]) for key in SIZES}
        rows.append({"stage": str(number), **sizes, "fits": "yes" if stage["fits"] else "no"})
    output.show(rows)
    for sentence in plan["reasons"][1:]:  # the first one says why this engine
        output.say(sentence)
    has = f"{in_bytes(plan['device_memory'])} of memory, a tenth of it left free"
    fits, not_all = f"every stage fits into {has}", f"the largest stage does not fit into {has}; {LESS}"
    output.say(fits if plan["fits"] else not_all, "bold")


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
        from fpt.cli.views import described_task, print_task
    with progress.running():
        views = [
            described_task(own, task.tasks.get(name, task), number, progress.with_bar)
            for name, own in tasks_of(config).items()
        ]
    present(arguments, views if task.tasks else views[0], lambda _: list(map(print_task, views)))


def _show_prompt(arguments: Arguments) -> None:
    number, stage = arguments.number("n", 3), stage_of(arguments)
    run, config = subject_of(arguments)
    assert run is not None
    with Progress().console.status("importing torch and transformers"):
        from fpt.cli.views import described_prompt, print_prompt
    present(arguments, described_prompt(run, config, stage, number), print_prompt)


def report(arguments: Arguments) -> None:
    """Run `fpt report`."""
    from fpt.report import page as pages  # here, as no other verb needs what it imports

    folders = arguments.overrides
    runs, page = pages.open_runs(folders), pages.output_of(folders, arguments.options.get("output"))
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
    installed = {canonicalize_name(one.name): one.version for one in distributions()}
    versions = {"fpt": __version__} | {name: installed.get(canonicalize_name(name)) for name in (*needed, *OPTIONAL)}
    problems = [f"{name} is not installed" for name in needed if versions[name] is None]
    problems += [f"the embedded model's {name} {problem}" for name, problem in tiny.problems().items()]
    report = ""
    try:  # torch may fail to import, and that is then a problem to report
        from torch.utils.collect_env import get_pretty_env_info

        report = get_pretty_env_info()  # type: ignore[no-untyped-call]
    except Exception as error:
        problems.append(f"torch: {reason(error)}")
    return {"versions": versions, "problems": problems, "torch": report}


def _print_findings(findings: dict[str, Any]) -> None:
    print(findings["torch"], end="\n\n")
    print(*(f"{name} {number or 'is not installed'}" for name, number in findings["versions"].items()), sep="\n")
    Output().say("; ".join(findings["problems"]) or "nothing is broken", "bold")
