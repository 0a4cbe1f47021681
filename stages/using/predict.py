"""Open a learned prompt, or several, with their model, ready to answer texts."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.config.run_config import RunConfig
from fpt.data.encoding import Tokens, templates_of
from fpt.devices import distributed
from fpt.devices.device import open_device
from fpt.devices.engine import Engine
from fpt.errors import UserError
from fpt.prompts.kinds import kind_of
from fpt.tasks.catalogue import rules_of
from fpt.tasks.task import ANSWER, Example
from fpt.training.prediction import MixedPredictor, Predictor
from stages.fits import check_options
from stages.inputs import choice_for
from stages.models import Models
from stages.using.learned import LearnedPrompt, check_same_model


@contextmanager
def predictor(
    config: RunConfig, prompt: LearnedPrompt, *, beams: int = 1, max_new_tokens: int | None = None
) -> Iterator[Predictor]:
    """Within, the model is there and answers.

    Args:
        config: model, task (its form, no data) and engine.
        prompt: what was learned.
        beams: of beam search; 1: greedy.
        max_new_tokens: no output is longer; None: than in the run, or the longest label, or the task's limit.
    """
    several = mixed_predictor({"": (config, prompt)}, beams=beams, max_new_tokens=max_new_tokens)
    with several as mixed:
        yield mixed.predictors[""]


@contextmanager
def mixed_predictor(
    prompts: Mapping[str, tuple[RunConfig, LearnedPrompt]], *, beams: int = 1, max_new_tokens: int | None = None
) -> Iterator[MixedPredictor]:
    """Within, one model is there and answers with several prompts, by name; the first one's engine holds it."""
    config, first = next(iter(prompts.values()))
    for own, _ in prompts.values():
        check_options(own, beams=beams, max_new_tokens=max_new_tokens)
    device = open_device(config.engine)
    with distributed.joined(config.engine, device):
        backbone, engine = distributed.main_first(lambda: open_backbone(config.model)), Engine(config.engine, device)
        if engine.is_sharded and distributed.size() > 1:
            raise UserError("engine=deepspeed: several processes of fpt predict take engine=torch, the default")
        selection, row = first.selection(backbone), backbone.family.row
        for own, prompt in prompts.values():
            _check_alike(own, prompt, config, first, backbone)
        with Models(backbone, engine, first.config).open(selection, first.tensors) as model:
            predictors = {}
            for name, (own, prompt) in prompts.items():
                rules = rules_of(own.task)
                words = [ANSWER.format(answer=label) for label in rules.labels or ("",)]
                longest = max(map(len, Tokens(backbone.tokenizer, row).of_targets(words)))
                longest = longest if rules.labels else own.task.target_length
                module = Models(backbone, engine, prompt.config).prompt_of(selection, prompt.tensors)
                predictors[name] = Predictor(
                    model.with_prompt(module),
                    backbone.tokenizer,
                    device,
                    rules.from_text,
                    source_length=own.task.source_length,
                    max_new_tokens=max_new_tokens or prompt.max_new_tokens or longest,
                    batch_size=config.train.eval_batch,
                    beams=beams,
                    choice=choice_for(own, rules, backbone),
                    row=row,
                    templates=templates_of(rules, own.task),
                )
            yield MixedPredictor(predictors)


def _check_alike(
    config: RunConfig, prompt: LearnedPrompt, other: RunConfig, first: LearnedPrompt, backbone: Backbone
) -> None:
    """Refuse a prompt that one model cannot hold together with the first one."""
    check_same_model(prompt, first)
    prompt.check_tokenizer(backbone)
    if prompt is not first and len(backbone.shape) == 1:
        raise UserError(f"model={config.model.name}: has one stack, and takes one prompt at a time; give one run")
    places = [kind_of(one.config).position(backbone.shape.source.blocks) for one in (prompt, first)]
    if places[0] != places[1]:
        raise UserError(
            f"{prompt.name}: its prompt enters after {places[0]} encoder blocks, and that of {first.name} after"
            f" {places[1]}; in one batch all enter at one place"
        )
    if config.engine.dtype != other.engine.dtype:
        raise UserError(
            f"{prompt.name}: was trained with engine.dtype={config.engine.dtype}, {first.name} with"
            f" {other.engine.dtype}; engine.dtype=… says which precision both are to have"
        )


def told_by_main(windows: Iterable[list[Example]]) -> Iterator[list[Example]]:
    """The windows that the main process reads, in every process; what the others give is not looked at."""
    own = iter(windows)
    while (window := distributed.broadcast_from_main(lambda: next(own, None))) is not None:
        yield window
