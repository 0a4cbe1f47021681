"""Open a learned prompt with its model, ready to answer texts."""

from collections.abc import Iterator
from contextlib import contextmanager

from fpt.backbones.backbone import open_backbone
from fpt.config.schema import RunConfig
from fpt.devices import distributed
from fpt.devices.engine import Engine, open_device
from fpt.tasks.catalogue import rules_of
from fpt.tasks.task import ANSWER
from fpt.training.prediction import Predictor
from stages import prepare
from stages.using.learned import LearnedPrompt


@contextmanager
def predictor(
    config: RunConfig, trained: LearnedPrompt, *, beams: int = 1, max_new_tokens: int | None = None
) -> Iterator[Predictor]:
    """Within, the model is there and answers.

    Args:
        config: model, task (its form, no data) and engine.
        trained: the prompt.
        beams: of beam search; 1: greedy.
        max_new_tokens: no output is longer; None: than in the run, or the longest label, or the task's limit.

    Raises:
        UserError: task, device, model or prompt cannot be used.
    """
    rules, device = rules_of(config.task), open_device(config.engine)
    with distributed.joined(config.engine, device):
        backbone, engine = open_backbone(config.model), Engine(config.engine, device)
        chosen = trained.selection(backbone)
        labels = backbone.tokenizer([ANSWER.format(answer=label) for label in rules.labels or ("",)])["input_ids"]
        longest = max(map(len, labels)) if rules.labels else config.task.target_length
        with prepare.prompted(backbone, chosen, trained.prompt, trained.how, config.train, engine) as model:
            yield Predictor(
                model,
                backbone.tokenizer,
                device,
                rules.from_text,
                source_length=config.task.source_length,
                max_new_tokens=max_new_tokens or trained.max_new_tokens or longest,
                batch_size=config.train.eval_batch,
                beams=beams,
            )
