"""Where a prompt starts: from what a file holds, or as its kind begins; the same for every schedule."""

from pathlib import Path

from fpt.backbones.backbone import Backbone
from fpt.config.schema import PromptConfig
from fpt.prompts.files import check, open_prompt
from fpt.prompts.kinds import kind_of
from fpt.prompts.modules import Tensors


def initial(config: PromptConfig, backbone: Backbone, *, labels: tuple[str, ...], seed: int) -> Tensors:
    """The tensors to start from, float32.

    Args:
        config: what the prompt is, and which start it has.
        backbone: whose embeddings, tokenizer and width count.
        labels: the task's label words, for init=labels.
        seed: of the run.

    Raises:
        UserError: there is nothing to start from, or a file's tensors do not fit.
    """
    if config.init == "file":
        check(config, backbone.config.d_model)
        return open_prompt(Path(str(config.file)).expanduser()).read()
    return kind_of(config).initial(backbone, labels=labels, seed=seed)
