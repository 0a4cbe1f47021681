"""What happens in a stage, written down and shown: lines of metrics.jsonl, bars, saved states."""

from fpt.devices.meter import Meter
from fpt.runs.progress import Progress
from fpt.runs.run import PROMPT, UPDATES
from fpt.runs.shared_folder import SharedFolder
from fpt.training.checkpoint import TrainState, dump_state
from fpt.training.loop import Event, Lessened, Saved, Ungraphed, Updated
from stages import resume
from stages.planning.flops import FlopsPlan
from stages.schedule import Schedule, Stage
from stages.start import Start


class Journal:
    """One stage's."""

    def __init__(
        self,
        folder: SharedFolder,
        progress: Progress,
        stage: Stage,
        schedule: Schedule,
        flops: FlopsPlan,
        seconds: float,
        start: Start,
        meter: Meter,
    ) -> None:
        """Of a stage of the schedule.

        Args:
            folder: takes the lines and states.
            progress: shows them.
            stage: the one that trains.
            schedule: all of them.
            flops: what every stage costs; the scoring of neurons is part of what the run has spent.
            seconds: what scoring the neurons took.
            start: where the prompt began, which knows how it is written.
            meter: measures the updates.
        """
        self._folder, self._progress, self._stage, self._last = folder, progress, stage, schedule.last
        self._flops, self._start, self._meter = flops, start, meter
        earlier = schedule.stages[: stage.index - 1]
        self._seconds = seconds + sum(resume.read_state(folder, before).seconds for before in earlier)

    def record(self, event: Event) -> None:
        """Write down what happened."""
        if isinstance(event, Saved):
            self._save(event.state)
            return
        if isinstance(event, Lessened):
            self._progress.say(f"out of memory: from here on {event.micro_batch} examples at once, the same gradients")
            return
        if isinstance(event, Ungraphed):
            self._progress.say(f"from here on updates are no CUDA graphs: {event.reason}")
            return
        where = f"stage {self._stage.index}/{self._last.index}  update {event.update}/{self._last.end}"
        flops = self._flops.flops_before(event.update)
        spent = {"flops": self._flops.flops_importance + flops, "seconds": round(self._seconds + event.seconds, 3)}
        line = {"update": event.update, "stage": self._stage.index, **spent}
        if isinstance(event, Updated):
            rate = self._meter.updated(event.seconds, event.tokens)
            speed = {"tokens_per_second": round(rate)} if rate else {}
            self._folder.log({**line, "loss": event.loss, "lr": event.lr, **speed})
            self._progress.updated(where, loss=event.loss, done=flops)
        else:
            self._folder.log({**line, "split": "validation", **event.evaluation.metrics})
            self._progress.scored(where, score=event.evaluation.score)
            self._meter.validated(event.seconds)

    def _save(self, state: TrainState) -> None:
        if state.done:  # before the state, which says that nothing is left to do
            prompt = self._start.dump(state.kept_prompt, stage=self._stage.name)
            self._folder.write(f"stages/{self._stage.name}/{PROMPT}", prompt)
            self._folder.write_json(f"stages/{self._stage.name}/{UPDATES}", self._meter.found)
        self._folder.write(resume.state_file(self._stage), dump_state(state, self._folder.metrics_mark()))
