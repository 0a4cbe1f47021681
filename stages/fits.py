"""Does a model's way to read fit the task, and what is asked of it? From configurations alone."""

from typing import Any

from fpt.backbones.location import config_values
from fpt.backbones.rows import Row, value_at
from fpt.backbones.shapes import row_of
from fpt.config.run_config import RunConfig
from fpt.errors import UserError
from fpt.tasks.catalogue import is_own, rules_of
from fpt.tasks.task import MASK


def check(config: RunConfig, values: dict[str, Any], where: str) -> None:
    """Refuse a run whose model, of these values in its config.json, does not read as the task wants.

    Raises:
        UserError: a masked model has no labels to choose from, another one has a mask, weights are to be packed that
            cannot be, or texts are longer than the positions that the model knows.
    """
    row, task = row_of(values, where), config.task
    if config.engine.quantize != "none" and row.first.ffn.transposed:
        raise UserError(
            f"engine.quantize={config.engine.quantize}: packs linear layers, and model={config.model.name} has"
            " layers of another kind; leave it out"
        )
    _check_positions(config, row, values)
    if is_own(task) and task.train is None:  # which a plan does without
        return
    rules = rules_of(task)
    if row.reads == "mask" and not rules.labels:
        raise UserError(
            f"model={config.model.name}: answers by one word at a mask, and {task.name} has no label words;"
            " take a task with labels, or a model that writes"
        )
    if row.reads != "mask" and MASK in rules.template.text:
        raise UserError(
            f"model={config.model.name}: writes its answers, and the template has a {MASK};"
            " take it out, or call a field of that name otherwise"
        )


def _check_positions(config: RunConfig, row: Row, values: dict[str, Any]) -> None:
    if row.positions is None:
        return
    key, reserved = row.positions
    known = value_at(values, key)
    if not isinstance(known, int):
        return
    known -= reserved
    task = config.task
    target = task.target_length - 1 if row.reads == "causal" else 0
    if task.source_length + target > known:
        raise UserError(
            f"task.source_length={task.source_length}: model={config.model.name} has {known} positions"
            f"{f', of which {target} are for the target' if target else ''};"
            f" give task.source_length={known - target} or less"
        )


def check_options(config: RunConfig, *, beams: int, max_new_tokens: int | None) -> None:
    """Refuse options of generation where there is none, or none like it.

    Raises:
        UserError: there is such an option.
    """
    if beams == 1 and max_new_tokens is None:
        return
    row = row_of(*config_values(config.model))
    option = f"beams={beams}" if beams > 1 else f"max-new-tokens={max_new_tokens}"
    if config.task.answer == "score" or row.reads == "mask":
        why = "task.answer=score" if config.task.answer == "score" else "a masked model"
        raise UserError(f"{option}: is of generation; with {why} nothing is generated, so leave it out")
    if beams > 1 and row.reads == "causal":
        raise UserError(f"{option}: models of one stack answer greedily; leave it out")
