"""What the prompt is trained for: tasks as text to text."""

from fpt.config import RunConfig
from fpt.errors import UserError
from fpt.tasks import labels
from fpt.tasks.task import Task


def open_task(config: RunConfig) -> Task:
    """The task's examples as text, read and checked whole.

    Raises:
        UserError: no reader for the task yet, a source that cannot be reached, or a malformed line.
    """
    name = config.task.name
    if name not in labels.TASKS:
        raise UserError(
            f"task={name}: can be planned (fpt plan task={name}), not trained yet;"
            f" trainable are {', '.join(labels.TASKS)}"
        )
    return labels.open_label_task(labels.TASKS[name], config.task, embedded=config.model.weights == "embedded")
