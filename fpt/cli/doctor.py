"""What one pastes into a bug report: torch's own report, the versions of what fpt uses, and what of it is broken."""

import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from fpt import __version__
from fpt.backbones import tiny
from fpt.errors import reason

OPTIONAL = ("bitsandbytes", "tensorboard", "wandb", "peft")


def examine() -> dict[str, Any]:
    """Versions, null where a package is not installed; `problems`, a sentence for each; and torch's report as text."""
    needed = [re.split(r"[^\w-]", line)[0] for line in requires("fpt") or () if "extra ==" not in line]
    versions = {"fpt": __version__} | {name: _version(name) for name in (*needed, *OPTIONAL)}
    problems = [f"{name} is not installed" for name in needed if versions[name] is None]
    problems += [f"the embedded model's {name} {problem}" for name, problem in tiny.problems().items()]
    report = ""
    try:  # a torch that cannot be imported is what the report is for
        from torch.utils.collect_env import get_pretty_env_info

        from fpt.devices.extensions import abandoned_locks

        problems += [f"{lock}: is of a build that was killed; remove this file" for lock in abandoned_locks()]
        report = get_pretty_env_info()  # type: ignore[no-untyped-call]
    except Exception as error:
        problems.append(f"torch: {reason(error)}")
    return {"versions": versions, "problems": problems, "torch": report}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
