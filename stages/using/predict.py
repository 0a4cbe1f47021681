"""Open a learned prompt with its model, ready to answer texts."""

from collections.abc import Iterator
from contextlib import contextmanager

from fpt.backbones.backbone import open_backbone
from fpt.config.run_config import RunConfig
from fpt.data.encoding import Tokens
from fpt.devices import distributed
from fpt.devices.device import open_device
from fpt.devices.engine import Engine
from fpt.tasks.catalogue import rules_of
from fpt.tasks.task import ANSWER
from fpt.training.prediction import Predictor
from stages.fits import check_options
from stages.inputs import choice_for
from stages.models import Models
from stages.using.learned import LearnedPrompt


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

    Raises:
        UserError: task, device, model or prompt cannot be used, or options of generation where labels are scored.
    """
    rules = rules_of(config.task)
    check_options(config, beams=beams, max_new_tokens=max_new_tokens)
    device = open_device(config.engine)
    with distributed.joined(config.engine, device):
        backbone, engine = open_backbone(config.model), Engine(config.engine, device)
        row = backbone.family.row
        words = [ANSWER.format(answer=rules.words.get(label, label)) for label in rules.labels or ("",)]
        longest = max(map(len, Tokens(backbone.tokenizer, row).of_targets(words)))
        longest = longest if rules.labels else config.task.target_length
        choice = choice_for(config, rules, backbone)
        with Models(backbone, engine, prompt.config).open(prompt.selection(backbone), prompt.tensors) as model:
            yield Predictor(
                model,
                backbone.tokenizer,
                device,
                rules.from_text,
                source_length=config.task.source_length,
                max_new_tokens=max_new_tokens or prompt.max_new_tokens or longest,
                batch_size=config.train.eval_batch,
                beams=beams,
                choice=choice,
                row=row,
            )
