"""Gives every stage its training data, with the states below a late prompt where they are kept."""

import hashlib
import json
from dataclasses import replace
from typing import Any

from fpt.backbones.shapes import Selection
from fpt.data.encoded import Encoded, KeptStates
from fpt.prompts.kept_states import StatesBelow
from fpt.prompts.prompted import PromptedModel
from stages.inputs import Inputs
from stages.planning.kept_states import folder_of
from stages.schedule import Stage
from stages.setup import Setup


class StateKeeper:
    """Holds one stage's states at a time, and gives them to the next where that needs the same."""

    def __init__(self, setup: Setup) -> None:
        """Of a run."""
        self._plan, self._inputs, self._block = setup.plan.kept_states, setup.inputs, setup.start.block
        self._engine, self._with_bar = setup.engine, setup.progress.with_bar
        self._batch_size, self._folder = setup.config.train.batch_size, folder_of(setup.config)
        self._held: tuple[str, KeptStates] | None = None

    def data(self, stage: Stage, selection: Selection, model: PromptedModel, update: int) -> Encoded:
        """The training data of a stage after `update` updates; its `model` is the part of the backbone selected."""
        train = self._inputs.train
        if self._plan is None or self._plan.stages[stage.index - 1].does == "off":
            self._held = None
            return train
        if update == stage.end:  # stopped in its last validation, a stage has no update left to do
            return train
        about = origin(self._inputs, self._block, selection)
        name = json.dumps(about)
        if self._held is None or self._held[0] != name:
            self._held = None  # the last stage's go before these are made
            states = StatesBelow(model, train, self._batch_size, self._engine, self._with_bar)
            in_memory = self._plan.where == "memory"
            self._held = name, states.in_memory() if in_memory else states.in_file(self._folder, about)
        return replace(train, below=self._held[1])


def origin(inputs: Inputs, block: int, selection: Selection) -> dict[str, Any]:
    """What the states before a block are of, but for the data: it tells them apart."""
    kept = selection.source
    blocks = [one for one in kept.blocks if one < block]
    neurons = None if kept.neurons is None else kept.neurons[: len(blocks)]
    return {
        "model": inputs.backbone.fingerprint,
        "task": inputs.task.name,
        "blocks": blocks,
        "neurons": hashlib.sha256(json.dumps(neurons).encode()).hexdigest(),
    }
