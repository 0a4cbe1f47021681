"""Opens learned prompts with their model to answer texts."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.config.run_config import RunConfig
from fpt.data.tokens import tokens_of
from fpt.devices import distributed
from fpt.devices.device import open_device, with_precision
from fpt.devices.engine import Engine
from fpt.errors import UserError
from fpt.prompts.kinds import kind_of
from fpt.tasks.catalogue import rules_of
from fpt.tasks.task import ANSWER, TaskRules
from fpt.training.prediction import MixedPredictor, Predictor
from stages.fits import check_options
from stages.inputs import choice_for
from stages.partial import opened, prompt_in
from stages.using.learned import LearnedPrompt, check_same_model

Window = TypeVar("Window")  # texts to answer together


@contextmanager
def predictor(
    config: RunConfig, prompt: LearnedPrompt, *, beams: int = 1, max_new_tokens: int | None = None
) -> Iterator[Predictor]:
    """A context in which one prompt and its model answer texts.

    Outputs have at most `max_new_tokens` tokens; None: the run's limit, else the longest label or the task's limit.
    """
    several = mixed_predictor({"": (config, prompt)}, beams=beams, max_new_tokens=max_new_tokens)
    with several as mixed:
        yield mixed.predictors[""]


@contextmanager
def mixed_predictor(
    prompts: Mapping[str, tuple[RunConfig, LearnedPrompt]], *, beams: int = 1, max_new_tokens: int | None = None
) -> Iterator[MixedPredictor]:
    """A context in which several prompts, by name, answer with the model they share; it runs on the first's engine."""
    config, first = next(iter(prompts.values()))
    for own, prompt in prompts.values():
        check_options(replace(own, prompt=prompt.config), beams=beams, max_new_tokens=max_new_tokens)
    device = open_device(config.engine)
    with distributed.joined(config.engine, device):
        backbone = distributed.main_first(lambda: open_backbone(config.model))
        engine = Engine(with_precision(config.engine, backbone.sizes.width), device)
        if engine.config.is_sharded and distributed.size() > 1:
            raise UserError("engine=deepspeed: several processes of fpt predict take engine=torch, the default")
        selection = first.selection(backbone)
        for own, prompt in prompts.values():
            _check_alike(own, prompt, config, first, backbone)
        modules = {
            name: prompt_in(backbone, selection, prompt.config, prompt.tensors) for name, (_, prompt) in prompts.items()
        }
        with opened(backbone, selection, engine, next(iter(modules.values()))) as model:
            predictors = {}
            for name, (own, prompt) in prompts.items():
                rules = rules_of(own.task)
                predictors[name] = Predictor(
                    model.with_prompt(modules[name].to(device)),
                    tokens_of(rules, backbone, own.task),
                    device,
                    rules.from_text,
                    source_length=own.task.source_length,
                    max_new_tokens=max_new_tokens or prompt.max_new_tokens or _longest(own, rules, backbone),
                    batch_size=config.train.eval_batch,
                    beams=beams,
                    choice=choice_for(own, rules, backbone),
                )
            yield MixedPredictor(predictors)


def _longest(config: RunConfig, rules: TaskRules, backbone: Backbone) -> int:
    """Return how many tokens a target may have: as many as the longest label, or the limit if it is not one."""
    if not rules.classes:
        return config.task.target_length
    words = [ANSWER.format(answer=label) for label in rules.labels]
    return max(map(len, tokens_of(rules, backbone, config.task).of_targets(words)))


def _check_alike(
    config: RunConfig, prompt: LearnedPrompt, other: RunConfig, first: LearnedPrompt, backbone: Backbone
) -> None:
    """Refuse a prompt that cannot answer in one batch with the first one."""
    check_same_model(prompt, first)
    prompt.check_tokenizer(backbone)
    kinds = [kind_of(one.config) for one in (prompt, first)]
    if kinds[0].is_behind != kinds[1].is_behind:
        raise UserError(f"{prompt.name}, {first.name}: one has prompt.place=suffix; in one batch all have, or none has")
    places = [kind.position(backbone.shape.source.blocks) for kind in kinds]
    if places[0] != places[1]:
        raise UserError(
            f"{prompt.name}: its prompt enters after {places[0]} blocks, and that of {first.name} after"
            f" {places[1]}; in one batch all enter at one place"
        )
    if config.engine.dtype != other.engine.dtype:
        raise UserError(
            f"{prompt.name}: was trained with engine.dtype={config.engine.dtype}, {first.name} with"
            f" {other.engine.dtype}; engine.dtype=… says which precision both are to have"
        )


def windows_of_main(windows: Iterable[Window]) -> Iterator[Window]:
    """Give every process the windows that the main process reads; other processes leave their own `windows` unread."""
    own = iter(windows)
    while (window := distributed.broadcast_from_main(lambda: next(own, None))) is not None:
        yield window
