"""Read a verb's data, when its model is known to be there."""

from fpt.backbones.location import locate
from fpt.config.run_config import RunConfig
from fpt.runs.progress import Progress
from fpt.tasks.catalogue import data_of, rules_of
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task


def read_task(config: RunConfig, progress: Progress) -> Task:
    """The task's examples.

    The model's few small files come first: that it cannot be had is found out in a second or two, while the Hub is
    asked for data again and again for half a minute, which is said.
    """
    rules = rules_of(config.task)
    with progress.console.status("looking for the model"):
        locate(config.model, with_weights=False)
    if (data := data_of(config, rules)) == "hub":
        progress.say(f"reading {rules.records.describe(data)}; a Hub that does not answer is asked for half a minute")
    with progress.console.status("reading the data"):
        return open_task(config)
