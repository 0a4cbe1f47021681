"""Writes metrics.jsonl and saved states, shows progress and measures speed and memory, while a stage trains."""

from typing import Any

import torch

from fpt.runs import metrics
from fpt.runs.folder import STATE
from fpt.runs.run import PROMPT, UPDATES
from fpt.training.checkpoint import TrainState, dump_state
from fpt.training.evaluation import Evaluation
from fpt.training.loop import Changed, Event, Updated, Validated
from stages.schedule import Stage
from stages.setup import Setup


class Journal:
    """Records the training of each stage in the run folder and shows it in the terminal."""

    best: Evaluation | None = None  # that chose the best prompt; None: none since the run was started or resumed
    _last: Evaluation | None = None

    def __init__(self, setup: Setup) -> None:
        self._folder, self._progress, self._start = setup.folder, setup.progress, setup.start
        flops = setup.plan.flops - setup.plan.flops_importance
        self._progress.expect(flops, done=setup.plan.flops_before(setup.states[-1].update))

    def begin(self, setup: Setup, stage: Stage, seconds: float, *, before: float) -> None:
        """Begin a stage, or resume it after `seconds` of training; the run had spent `before` seconds until then."""
        self._stage, self._schedule, self._plan, self._before = stage, setup.schedule, setup.plan, before
        self._meter = Meter(setup.engine.device, seconds)

    def record(self, event: Event) -> None:
        """Record one event of the stage's training and show it."""
        if isinstance(event, TrainState):
            self._save(event)
        elif isinstance(event, Changed):
            self._progress.say(event.reason)
        else:
            self._log(event)

    def _log(self, event: Updated | Validated) -> None:
        number, numbers = self._stage.index, len(self._schedule.stages)
        where = f"stage {number}/{numbers}  update {event.update}/{self._schedule.updates}"
        flops = self._plan.flops_before(event.update)
        spent = {"flops": self._plan.flops_importance + flops, "seconds": round(self._before + event.seconds, 3)}
        line = {"update": event.update, "stage": self._stage.index, **spent}
        if isinstance(event, Updated):
            rate = self._meter.updated(event.seconds, event.tokens)
            speed = {"tokens_per_second": round(rate)} if rate else {}
            self._folder.log({**line, "loss": event.loss, "lr": event.lr, **speed})
            self._progress.updated(where, loss=event.loss, done=flops)
            self._judge(event)
        else:
            self._last = event.evaluation
            self._folder.log({**line, "split": "validation", **event.evaluation.metrics})
            self._progress.scored(where, score=event.evaluation.score)
            self._meter.validated(event.seconds)

    def _judge(self, event: Updated) -> None:
        """Say so if the stage's losses show that its expansion lost the prompt, or that its rate is too high."""
        number, done = self._stage.index, event.update - self._stage.first_update
        if done == metrics.AFTER and (lost := metrics.lost_at(number, self._folder.metrics())):
            self._progress.say(metrics.expansion_lost(number, lost))
        if done == metrics.WATCHED and (rise := metrics.risen_in(number, self._folder.metrics())):
            self._progress.say(
                f"the training loss rose from {rise[0]:.1f} to {rise[1]:.1f} in the first {done} updates of stage"
                f" {number}: try a lower optim.lr (now {event.lr:g})"
            )

    def _save(self, state: TrainState) -> None:
        if state.best_update == state.judged:
            self.best = self._last
        if state.done:  # written before the state, which tells a resumed run that nothing is left to do
            prompt = self._start.dump(state.kept_prompt, stage=self._stage.name)
            self._folder.write(f"{self._stage.folder}/{PROMPT}", prompt)
            self._folder.write_json(f"{self._stage.folder}/{UPDATES}", self._meter.found)
        self._folder.write(f"{self._stage.folder}/{STATE}", dump_state(state, self._folder.metrics_mark()))


class Meter:
    """Measures a stage's updates, from where it began or last resumed, after `seconds` of training."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self._device, self._at, self._seconds = device, seconds, 0.0
        self._tokens = self._peak = 0
        self._forget_peak()

    def updated(self, seconds: float, tokens: int) -> float | None:
        """Count an update of `tokens` tokens; returns the stage's tokens per second so far.

        The time of a single update is not known, since its loss is read while the next one is running.
        """
        took, self._at = seconds - self._at, seconds
        self._tokens, self._seconds = self._tokens + tokens, self._seconds + took
        if self._device.type == "cuda":
            self._peak = max(self._peak, torch.cuda.max_memory_allocated(self._device))
        return self._rate

    def validated(self, seconds: float) -> None:
        """Leave out a validation that has just ended: its time and memory are not those of updates."""
        self._at = seconds
        self._forget_peak()

    @property
    def found(self) -> dict[str, Any]:
        """The stage's peak memory on a GPU in bytes, and tokens per second; None if unknown.

        Tokens are those of sources and targets, without padding and prompt.
        """
        return {"peak_memory": self._peak or None, "tokens_per_second": self._rate}

    @property
    def _rate(self) -> float | None:
        return self._tokens / self._seconds if self._seconds > 0 else None

    def _forget_peak(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
