"""Writes metrics.jsonl and saved states, and shows progress, while a stage trains."""

from statistics import mean

from fpt.devices import distributed
from fpt.devices.meter import Meter, peak_flops
from fpt.runs import expansions
from fpt.runs.run import PROMPT, UPDATES
from fpt.training.checkpoint import TrainState, dump_state
from fpt.training.evaluation import Evaluation
from fpt.training.loop import Changed, Event, Saved, Updated, Validated
from stages import resume
from stages.schedule import Stage
from stages.setup import Setup

WATCHED = 60  # the first updates of a stage, in which its loss should not rise
RISE = 0.5  # nats that the last ten of them may be above the first, as losses of single batches differ


class Journal:
    """Records the training of each stage in the run folder and shows it in the terminal.

    Attributes:
        best: the evaluation that chose the best prompt; None if there was none since the run was started or resumed.
    """

    best: Evaluation | None = None
    _last: Evaluation | None = None

    def __init__(self, setup: Setup) -> None:
        """Begin a run's journal; call it before the first model is built, because memory is measured from here on."""
        device, dtype = setup.engine.device, setup.config.engine.dtype
        self._folder, self._progress, self._start = setup.folder, setup.progress, setup.start
        self._schedule, self._plan = setup.schedule, setup.plan
        self._meter = Meter(device, peak_flops(device, dtype, distributed.size()))
        self._progress.expect(self._plan.flops_of_stages, done=self._plan.flops_before(setup.state.update))

    def begin(self, stage: Stage, seconds: float, *, measuring: float) -> None:
        """Begin a stage, or resume it after `seconds` of training; `measuring` were spent before the first stage."""
        earlier = self._schedule.stages[: stage.index - 1]
        self._stage, self._losses = stage, list[float]()
        self._seconds = measuring + sum(resume.read_state(self._folder, one)[0].seconds for one in earlier)
        self._meter.begin(self._plan.stages[stage.index - 1].flops_per_update, seconds)

    def record(self, event: Event) -> None:
        """Record one event of the stage's training and show it."""
        if isinstance(event, Saved):
            self._save(event.state)
        elif isinstance(event, Changed):
            self._progress.say(event.reason)
        else:
            self._log(event)

    def _log(self, event: Updated | Validated) -> None:
        number, numbers = self._stage.index, len(self._schedule.stages)
        where = f"stage {number}/{numbers}  update {event.update}/{self._schedule.updates}"
        flops = self._plan.flops_before(event.update)
        spent = {"flops": self._plan.flops_importance + flops, "seconds": round(self._seconds + event.seconds, 3)}
        line = {"update": event.update, "stage": self._stage.index, **spent}
        if isinstance(event, Updated):
            rate = self._meter.updated(event.seconds, event.tokens)
            speed = {"tokens_per_second": round(rate)} if rate else {}
            self._folder.log({**line, "loss": event.loss, "lr": event.lr, **speed})
            self._progress.updated(where, loss=event.loss, done=flops)
            self._watch(event)
            if event.update == self._stage.first_update + expansions.AFTER:
                self._say_if_lost(self._stage.index)
        else:
            self._last = event.evaluation
            self._folder.log({**line, "split": "validation", **event.evaluation.metrics})
            self._progress.scored(where, score=event.evaluation.score)
            self._meter.validated(event.seconds)

    def _watch(self, event: Updated) -> None:
        """Say so if the loss of a stage's first updates has risen; a stage that was resumed among them is let be."""
        if event.update - self._stage.first_update != len(self._losses) + 1 or len(self._losses) == WATCHED:
            return
        self._losses.append(event.loss)
        first, last = self._losses[0], mean(self._losses[-10:])
        if len(self._losses) == WATCHED and last > first + RISE:
            self._progress.say(
                f"the training loss rose from {first:.1f} to {last:.1f} in the first {WATCHED} updates of stage"
                f" {self._stage.index}: try a lower optim.lr (now {event.lr:g})"
            )

    def _say_if_lost(self, stage: int) -> None:
        if lost := self._folder.ask(lambda own: expansions.lost_at(stage, own.metrics())):
            self._progress.say(expansions.sentence(stage, lost))

    def _save(self, state: TrainState) -> None:
        if state.best_update == state.judged:
            self.best = self._last
        if state.done:  # written before the state, which tells a resumed run that nothing is left to do
            prompt = self._start.dump(state.kept_prompt, stage=self._stage.name)
            self._folder.write(f"{self._stage.folder}/{PROMPT}", prompt)
            self._folder.write_json(f"{self._stage.folder}/{UPDATES}", self._meter.found)
        self._folder.write(resume.state_file(self._stage), dump_state(state, self._folder.metrics_mark()))
