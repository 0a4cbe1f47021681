"""Reads learned prompts from runs and files, scores one on a split of its task, and has several answer texts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.backbones.shapes import Selection
from fpt.config.run_config import RunConfig
from fpt.config.schema import PromptConfig
from fpt.data.encoding import check_labels
from fpt.data.tokens import tokens_of
from fpt.devices import distributed
from fpt.devices.engine import Engine, open_device, with_precision
from fpt.errors import UserError
from fpt.prompts.files import AS_IT_IS, open_prompt, refuse_other_tokenizer
from fpt.prompts.kinds import kind_of, width_of
from fpt.prompts.modules import Tensors
from fpt.runs.progress import Progress
from fpt.runs.run import INPUTS, Run, reading
from fpt.tasks.catalogue import rules_of
from fpt.tasks.task import Task
from fpt.training.evaluation import predictions
from fpt.training.prediction import Predictor, TaskPrompt
from stages import selection
from stages.inputs import choice_for, evaluator_of, open_inputs
from stages.partial import opened, prompt_in
from stages.resolve import check_options

Window = TypeVar("Window")  # texts to answer together


@dataclass(frozen=True)
class LearnedPrompt:
    """A prompt, and what is known about the model that it was trained on; None for what is not known."""

    name: str  # where it comes from, as named in messages
    tensors: Tensors
    config: PromptConfig  # its kind, and where it enters
    part: Selection | None = None  # the part of the backbone that it is for; None: the whole
    fingerprint: str | None = None  # the hash of the backbone's weights
    vocabulary: str | None = None  # the tokenizer's hash
    max_new_tokens: int | None = None  # the limit of its outputs when it was scored

    def selection(self, backbone: Backbone) -> Selection:
        """Return the part of the backbone that the prompt is for; refuse a backbone that it was not trained on."""
        width = backbone.sizes.width
        kind = kind_of(self.config)
        held = width_of(self.tensors)
        if held != width:
            raise UserError(f"{self.name}: holds vectors of {held}, but {backbone.folder} has states of {width}")
        kind.position(backbone.shape.source.blocks)
        kind.resolved(backbone.family.row.reads, backbone.shape.source.blocks)
        refuse_other_tokenizer(self.name, self.vocabulary, backbone)
        if self.fingerprint not in (None, backbone.fingerprint):
            raise UserError(
                f"{self.name}: the prompt was trained on another model than {backbone.folder}, whose config.json or"
                f" weights differ; {AS_IT_IS}"
            )
        return self.part or selection.everything(backbone.shape)


def from_run(run: Run, stage: int | None) -> LearnedPrompt:
    """Read a run's best prompt, which is for the last stage's model, or a stage's last one, for that stage's model."""
    own = None if stage is None else run.stage(stage)
    file = (own or run.stages[-1]).file("selection.safetensors")
    with reading(run.path / file):
        part = selection.load(run.read(file))
    inputs = run.read_json(INPUTS)  # those of earlier versions of fpt do not say which tokenizer it was
    known = inputs["model"], inputs.get("tokenizer"), run.result.get("max_new_tokens")
    return LearnedPrompt(f"run={run.path}", run.learned(own), run.config.prompt, part, *known)


def from_file(config: RunConfig) -> LearnedPrompt:
    """Read the prompt in `prompt.file`, which is for the whole model."""
    stored = open_prompt(Path(str(config.prompt.file)).expanduser())
    own = stored.config
    if config.prompt.place != PromptConfig.place:  # other tools' files cannot say so
        own = replace(own, place=config.prompt.place)
    name, known = f"prompt.file={config.prompt.file}", (stored.fingerprint, stored.vocabulary)
    return LearnedPrompt(name, stored.tensors(), own, None, *known)


def evaluate(
    config: RunConfig, read: Callable[[], Task], split: str | None, prompt: LearnedPrompt, progress: Progress
) -> tuple[dict[str, Any], bytes]:
    """Answer a split with the prompt as training does; returns the scores, and the lines of predictions.jsonl.

    A split without labels has no scores. Every process calls this, and each gets the whole result.
    """
    device = open_device(config.engine)
    with distributed.joined(config.engine, device):
        task = distributed.main_first(read)
        inputs = open_inputs(config, task, progress)
        engine = Engine(with_precision(config.engine, inputs.backbone.sizes.width), device)
        evaluator = evaluator_of(config, inputs, engine, progress)
        data, examples = inputs.valid, task.valid
        if split == "train":
            data, examples = inputs.train, task.train
        elif inputs.test is not None:
            data, examples = inputs.test, task.test
        backbone, part = inputs.backbone, prompt.selection(inputs.backbone)
        module = prompt_in(backbone, part, prompt.config, prompt.tensors)
        with progress.running(), opened(backbone, part, engine, module) as model:
            if data is inputs.valid:
                evaluation = evaluator.validate(model)
                answers, metrics = evaluation.answers, evaluation.metrics
            else:
                answers = evaluator.answers(model, data, split or config.task.valid_split)
                metrics = task.score(answers.read, examples) if examples[0].golds else {}
    # The baseline comes from training examples; a validation file that is given as task.train too has none.
    has_baseline = examples is task.valid and (config.task.valid is None or config.task.train != config.task.valid)
    scores = {
        "task": task.name,
        "origin": task.origin,
        "model": config.model.name,
        "prompt": prompt.name,
        "split": split or config.task.valid_split,
        "examples": len(examples),
        "metric": task.metric,
        "metrics": metrics or None,
        "baseline": task.baseline_name if has_baseline else None,
        "majority": task.majority if has_baseline else None,
    }
    return scores, predictions(answers, task, examples)


@contextmanager
def predictor(
    prompts: Mapping[str, tuple[RunConfig, LearnedPrompt]], *, max_new_tokens: int | None = None
) -> Iterator[Predictor]:
    """A context in which prompts, by name, answer texts with the model they share; it runs on the first's engine.

    Outputs have at most `max_new_tokens` tokens; None: the run's limit, else the longest label or the task's limit.
    """
    config, first = next(iter(prompts.values()))
    for own, prompt in prompts.values():
        check_options(replace(own, prompt=prompt.config), max_new_tokens=max_new_tokens)
    device = open_device(config.engine)
    with distributed.joined(config.engine, device):
        backbone = distributed.main_first(lambda: open_backbone(config.model))
        engine = Engine(with_precision(config.engine, backbone.sizes.width), device)
        if engine.config.is_sharded and distributed.size() > 1:
            raise UserError("engine=deepspeed: several processes of fpt predict take engine=torch, the default")
        part = shared_part([prompt for _, prompt in prompts.values()], backbone)
        uses = dict[str, TaskPrompt]()
        for name, (own, prompt) in prompts.items():
            _check_alike(own, prompt, config, first, backbone)
            rules = rules_of(own.task)
            tokens, longest = tokens_of(rules, backbone, own.task), own.task.target_length
            if rules.classes:
                longest = max(map(len, check_labels(rules, tokens, chosen=True)))
            uses[name] = TaskPrompt(
                prompt_in(backbone, part, prompt.config, prompt.tensors).to(device),
                tokens,
                rules.from_text,
                source_length=own.task.source_length,
                max_new_tokens=max_new_tokens or prompt.max_new_tokens or longest,
                choice=choice_for(own, rules, backbone),
            )
        with opened(backbone, part, engine, next(iter(uses.values())).prompt) as model:
            yield Predictor(model, uses, device, config.train.eval_batch)


def shared_part(prompts: Sequence[LearnedPrompt], backbone: Backbone) -> Selection:
    """The part of the backbone that all these prompts are for; refuse one for another model or another part of it."""
    first, *others = prompts
    part = first.selection(backbone)
    for other in others:
        if other.selection(backbone) != part:
            raise UserError(f"{other.name}: its prompt is for another part of the model than that of {first.name}")
    return part


def _check_alike(
    config: RunConfig, prompt: LearnedPrompt, other: RunConfig, first: LearnedPrompt, backbone: Backbone
) -> None:
    """Refuse a prompt that cannot answer in one batch with the first one."""
    blocks, kinds = backbone.shape.source.blocks, [kind_of(one.config) for one in (prompt, first)]
    places = [f"as a {kind.config.place} after {kind.position(blocks)} blocks" for kind in kinds]
    if places[0] != places[1]:
        enters = f"enters {places[0]}, and that of {first.name} {places[1]}"
        raise UserError(f"{prompt.name}: its prompt {enters}; in one batch all enter at one place")
    if config.engine.dtype != other.engine.dtype:
        dtypes = f"engine.dtype={config.engine.dtype}, {first.name} with {other.engine.dtype}"
        raise UserError(f"{prompt.name}: was trained with {dtypes}; engine.dtype=… says which both are to have")


def windows_of_main(windows: Iterable[Window]) -> Iterator[Window]:
    """Give every process the windows that the main process reads; other processes leave their own `windows` unread."""
    own = iter(windows)
    while (window := distributed.broadcast_from_main(lambda: next(own, None))) is not None:
        yield window
