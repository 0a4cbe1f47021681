"""What goes on from one stage to the next: the prompt, and the optimizer's state unless told otherwise."""

from fpt.config.schema import RecycleConfig
from fpt.training.checkpoint import TrainState


def carry(state: TrainState, config: RecycleConfig) -> TrainState:
    """The state in which the next stage starts (Huang et al. 2022): only the model under the prompt changes."""
    optimizer = state.optimizer if config.optimizer else {}
    return TrainState(
        update=state.update, judged=state.judged, prompt=state.prompt, optimizer=optimizer, mean=state.mean
    )
