"""What a run needs before its first update: inputs opened and checked, neurons scored."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.backbones.shapes import STACKS, Selection
from fpt.config.same_run import fixed
from fpt.config.schema import PromptConfig, RunConfig, TrainConfig
from fpt.data.encoded import Encoded
from fpt.data.token_cache import tokenised
from fpt.devices import distributed
from fpt.devices.device import open_device
from fpt.devices.engine import Engine
from fpt.errors import UserError
from fpt.prompts import late, soft
from fpt.prompts.files import TENSOR
from fpt.prompts.late import LatePrompt
from fpt.prompts.prompted import Prompt, PromptedModel
from fpt.prompts.soft import SoftPrompt
from fpt.runs.progress import Progress, Stopwatch
from fpt.runs.run import MEASURED
from fpt.runs.shared_folder import SharedFolder
from fpt.runs.tensor_cache import find, keep
from fpt.tasks.task import Task
from fpt.training.checkpoint import Tensors, dump_prompt
from fpt.training.evaluation import Answers, Evaluation, generate, longest_answer
from stages import importance, partial, selection
from stages.schedule import Schedule

INPUTS = "inputs.json"
SCORES = "scores.safetensors"


@dataclass(frozen=True)
class Materials:
    """Everything opened and checked; no model built yet."""

    config: RunConfig
    backbone: Backbone
    schedule: Schedule
    task: Task
    train: Encoded
    valid: Encoded
    test: Encoded | None
    engine: Engine
    progress: Progress

    @property
    def layer(self) -> int:
        """The encoder's block before which the prompt enters, of the whole backbone."""
        return self.config.prompt.position(self.backbone.shape.encoder.blocks)

    def initial_prompt(self) -> Tensors:
        """Where the prompt starts; the same under every schedule."""
        config, seed = self.config.prompt, self.config.seed
        if config.kind == "late":
            return late.initial(config, d_model=self.backbone.config.d_model, seed=seed)
        return {TENSOR: soft.initial(config, self.backbone, labels=self.task.labels, seed=seed)}

    @property
    def about_prompt(self) -> dict[str, Any]:
        """How a late prompt's tensors are used; a soft one's need no words."""
        return late.about(self.config.prompt, self.layer) if self.config.prompt.kind == "late" else {}

    def dump(self, prompt: Tensors, **about: str) -> bytes:
        """What is learned as a file."""
        return dump_prompt(prompt, **about, **self.about_prompt)

    def start(self, prompt: Tensors) -> bytes:
        """All that tells one prompt's start from another's."""
        how = json.dumps(self.about_prompt).encode() if self.about_prompt else b""
        return b"".join([*(tensor.numpy().tobytes() for tensor in prompt.values()), how])

    @contextmanager
    def model(self, chosen: Selection, prompt: Tensors, how: PromptConfig | None = None) -> Iterator[PromptedModel]:
        """The partial PLM that a selection makes, with a prompt; within, the engine holds it.

        `how` says what the prompt is, if not the configuration.
        """
        with prompted(
            self.backbone, chosen, prompt, how or self.config.prompt, self.config.train, self.engine
        ) as model:
            yield model

    @property
    def everything(self) -> Selection:
        """What the whole backbone keeps."""
        return selection.everything(self.backbone.shape)

    @property
    def max_new_tokens(self) -> int:
        """How many tokens an answer may have."""
        return longest_answer(self.task, self.train, self.config.task.target_length)

    def evaluate(self, model: PromptedModel) -> Evaluation:
        """The prompt's scores and answers on the validation examples."""
        answers = self.answers(model, self.valid, "validation")
        return Evaluation(self.task.score(answers.read, self.task.valid), answers)

    def answer_test(self, model: PromptedModel) -> Answers | None:
        """The prompt's answers to the test split, if one was asked for."""
        return self.answers(model, self.test, "test") if self.test else None

    def answers(self, model: PromptedModel, data: Encoded, what: str) -> Answers:
        """The prompt's answers to some of the task's examples; `what` they are, for people."""
        config, tokenizer = self.config, self.backbone.tokenizer
        return generate(
            model,
            self.task,
            data,
            tokenizer,
            batch_size=config.train.eval_batch,
            max_new_tokens=self.max_new_tokens,
            engine=self.engine,
            with_bar=self.progress.with_bar,
            what=what,
        )


@contextmanager
def prompted(
    backbone: Backbone, chosen: Selection, prompt: Tensors, how: PromptConfig, config: TrainConfig, engine: Engine
) -> Iterator[PromptedModel]:
    """The partial PLM that a selection makes, with a prompt; within, the engine holds it."""
    body = partial.build(backbone, chosen, dtype=engine.dtype, device=engine.device, shard=engine.shard)
    with engine.holding(body) as held:
        distributed.barrier()  # one process may take longer than another to read the weights
        made = _module(how, prompt, chosen, backbone).to(engine.device)
        yield PromptedModel(held, made, checkpointing=config.activation_checkpointing)


def _module(how: PromptConfig, prompt: Tensors, chosen: Selection, backbone: Backbone) -> Prompt:
    if how.kind == "soft":
        return SoftPrompt(prompt[TENSOR])
    layer = how.position(backbone.shape.encoder.blocks)
    return LatePrompt(how, prompt, position=sum(block < layer for block in chosen.encoder.blocks))


@dataclass(frozen=True)
class Measured:
    """What is measured once, before the first update.

    Attributes:
        scores: importance [L, F] of each stack whose width is reduced.
        untrained: the initial prompt's score on the full model, where it was asked for.
        seconds: what scoring the neurons took.
    """

    scores: dict[str, Tensor]
    untrained: float | None
    seconds: float


def gather(config: RunConfig, schedule: Schedule, task: Task, progress: Progress) -> Materials:
    """Open the model and tokenise the data.

    Raises:
        UserError: the device, the model or its tokenizer cannot be used.
    """
    engine = Engine(config.engine, open_device(config.engine))
    backbone = distributed.main_first(lambda: open_backbone(config.model))
    cache = Path(config.cache_dir).expanduser()
    with progress.running():
        parts = distributed.main_first(lambda: tokenised(task, backbone, config.task, cache, progress.with_bar))
    largest = max(int(rows.ids.max()) for data in parts for rows in (data.sources, data.targets))
    if largest >= backbone.config.vocab_size:
        raise UserError(
            f"{backbone.folder}: the tokenizer makes token {largest}, but config.json says"
            f" vocab_size={backbone.config.vocab_size}; they do not belong together"
        )
    if task.labels and any(data.num_cut[1] for data in parts):
        raise UserError(
            f"task.target_length={config.task.target_length}: cuts the labels of {task.name}"
            f" ({', '.join(task.labels)}), and a label that is cut is never right. Give a larger one"
        )
    for note in task.notes:
        progress.say(note)
    for split, data in zip(("training", "validation", "test"), parts, strict=False):
        sources, targets = data.num_cut
        if sources or targets:
            lost = f" ({data.lost_answers:,} answers lost by it)" if data.lost_answers else ""
            progress.say(
                f"{split}: {sources:,} of {len(data):,} sources{lost} cut to {config.task.source_length} tokens,"
                f" {targets:,} targets to {config.task.target_length}"
            )
    train, valid, *tests = parts
    test = tests[0] if tests else None
    return Materials(config, backbone, schedule, task, train, valid, test, engine, progress)


def check_inputs(folder: SharedFolder, materials: Materials, prompt: Tensors) -> None:
    """Record what the run begins with, or compare it with what it began with.

    Raises:
        UserError: weights, data, configuration or the prompt's start are not those the run began with.
    """
    inputs = {
        "model": materials.backbone.fingerprint,
        "data": _digest(*filter(None, (materials.train, materials.valid, materials.test))),
        "prompt's start": hashlib.sha256(materials.start(prompt)).hexdigest(),
        "configuration": hashlib.sha256(json.dumps(fixed(materials.config)).encode()).hexdigest(),
    }
    if len(set(distributed.all_gather(json.dumps(inputs)))) > 1:
        raise UserError("the processes read different models or data; give all machines the same files")
    threads = torch.get_num_threads()
    if INPUTS not in folder:
        folder.write_json(INPUTS, {**inputs, "threads": threads})
        return
    began = json.loads(folder.read(INPUTS))
    for name, value in inputs.items():
        if began[name] != value:
            raise UserError(
                f"run.dir={folder.path}: the {name} has changed since this run began."
                " Give another run.dir, or start over with resume=never"
            )
    if began["threads"] != threads:
        materials.progress.say(
            f"this run began with {began['threads']} threads and goes on with {threads}:"
            " its prompt may differ in the last bits from an uninterrupted run's"
        )


def measure(folder: SharedFolder, materials: Materials, prompt: Tensors) -> Measured:
    """Score the neurons, and the untrained prompt if asked for; read from the run folder if they are there."""
    if MEASURED in folder:
        values = json.loads(folder.read(MEASURED))
        scores = load(folder.read(SCORES)) if SCORES in folder else {}
        if sorted(scores) == values["scored"]:
            return Measured(scores, values["untrained"], values["seconds"])
    stopwatch = Stopwatch()
    scores = _scores(materials, prompt)
    seconds = stopwatch.seconds
    untrained = None
    if materials.config.train.score_untrained:
        with materials.model(materials.everything, prompt) as model:
            untrained = materials.evaluate(model).metrics[materials.task.metric]
    if scores:
        folder.write(SCORES, save(scores))
    folder.write_json(MEASURED, {"scored": sorted(scores), "untrained": untrained, "seconds": seconds})
    return Measured(scores, untrained, seconds)


def _scores(materials: Materials, prompt: Tensors) -> dict[str, Tensor]:
    config = materials.config
    reduced = [name for name in STACKS if materials.schedule.reduces_width()[name]]
    if not reduced:
        return {}
    sample = importance_sample(materials)
    key = importance.key(
        materials.backbone.fingerprint,
        dtype=config.engine.dtype,
        device=materials.engine.device.type,
        batch_size=config.train.eval_batch,
        task=config.task.name,
        prompt=materials.start(prompt),
        examples=sample,
    )

    def compute() -> dict[str, Tensor]:
        with materials.model(materials.everything, prompt) as model:
            return importance.measure(
                model,
                sample,
                batch_size=config.train.eval_batch,
                engine=materials.engine,
                with_bar=materials.progress.with_bar,
            )

    found = _kept_by_main(Path(config.cache_dir).expanduser(), key, compute)
    return {name: found[name] for name in reduced}


def _kept_by_main(cache: Path, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The scores from the main process's cache; computed by all together where it has none."""
    there = distributed.broadcast_from_main(lambda: find(cache, "importance", key))
    if there is not None:
        return there
    computed = compute()
    if distributed.is_main():
        keep(cache, "importance", key, computed)
    return computed


def importance_sample(materials: Materials) -> Encoded:
    """The training examples that score the neurons."""
    config = materials.config
    return importance.sample(materials.train, config.schedule.importance_examples, config.seed)


def _digest(*parts: Encoded) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for rows in (part.sources, part.targets):
            digest.update(rows.ids.data)
            digest.update(rows.starts.data)
    return digest.hexdigest()
