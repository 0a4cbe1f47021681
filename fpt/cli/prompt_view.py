"""Describes and prints what a soft prompt learned: vectors' norms and nearest words, and how alike stages' are.

Letters: P prompt, D model, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.cli.tables import Output
from fpt.config.run_config import RunConfig
from fpt.errors import UserError
from fpt.prompts.kinds import TENSOR, kind_of
from fpt.runs.run import Run
from stages.using.learned import from_run

AT_ONCE = 2**14  # how many embeddings are in memory, in float32


def described(run: Run, config: RunConfig, stage: int | None, number: int) -> dict[str, Any]:
    """A run's best prompt, or a stage's last one: its vectors, each with its `number` nearest vocabulary items."""
    learned, backbone = from_run(run, stage), open_backbone(config.model)
    if TENSOR not in learned.tensors:
        kind, sizes = kind_of(learned.config), backbone.sizes
        what = kind.described(sizes.width, kind.position(backbone.shape.source.blocks), config.model.name)
        raise UserError(f"{learned.name}: has {what}; only a soft prompt's vectors stand among the embeddings")
    learned.selection(backbone)  # refuses another model
    prompt = learned.tensors[TENSOR].float()
    cosines, norms = _beside_embeddings(prompt, backbone)
    best = cosines.topk(min(number, len(norms)))
    return {
        "run": str(run.path),
        "model": config.model.name,
        "stage": stage,
        "typical_norm": norms.median().item(),
        "vectors": [
            {"norm": norm, "nearest": _items(backbone, ids, values)}
            for norm, ids, values in zip(prompt.norm(dim=1).tolist(), best.indices, best.values, strict=True)
        ],
        "similarity": _similarity([run.prompt(one) for one in run.stages]),
    }


def _beside_embeddings(prompt: Tensor, backbone: Backbone) -> tuple[Tensor, Tensor]:
    """The cosines [P, V] of a prompt [P, D] and the vocabulary's input embeddings, and the norms [V] of these."""
    vectors, cosines, norms = normalize(prompt), list[Tensor](), list[Tensor]()
    vocabulary = min(len(backbone.tokenizer), backbone.sizes.vocabulary)  # many models have rows to spare
    for ids in torch.split(torch.arange(vocabulary), AT_ONCE):  # typed, unlike the method
        embeddings = backbone.embeddings(ids.tolist())
        cosines.append(vectors @ normalize(embeddings).T)
        norms.append(embeddings.norm(dim=1))
    return torch.cat(cosines, dim=1), torch.cat(norms)


def _items(backbone: Backbone, ids: Tensor, cosines: Tensor) -> list[dict[str, Any]]:
    tokens = backbone.tokenizer.convert_ids_to_tokens(ids.tolist())
    rows = zip(tokens, ids.tolist(), cosines.tolist(), strict=True)
    return [{"token": token, "id": index, "cosine": cosine} for token, index, cosine in rows]


def _similarity(prompts: list[Tensor]) -> list[list[float]]:
    """For every two stages the mean cosine of the corresponding vectors of their prompts."""
    return [[cosine_similarity(one, other).mean().item() for other in prompts] for one in prompts]


def print_prompt(view: dict[str, Any]) -> None:
    """Print a prompt's vectors, each with its nearest vocabulary items, and how alike the stages' prompts are."""
    output, typical, similarity = Output(), view["typical_norm"], view["similarity"]
    which = "best prompt" if view["stage"] is None else f"prompt of stage {view['stage']}"
    output.say(
        f"{view['run']}: the {which}; norms, of which an embedding of {view['model']} has {typical:.3g} (the median),"
        " and the nearest vocabulary items by cosine"
    )
    output.show(
        (
            {"vector": str(number), "norm": f"{vector['norm']:.3g}", "nearest": _nearest(vector)}
            for number, vector in enumerate(view["vectors"], 1)
        ),
        words="nearest",
    )
    if len(similarity) > 1:
        output.say("\nsimilarity of the stages' prompts: the mean cosine of corresponding vectors")
        output.show(
            {"stage": str(number), **{str(other): f"{value:.3f}" for other, value in enumerate(row, 1)}}
            for number, row in enumerate(similarity, 1)
        )


def _nearest(vector: dict[str, Any]) -> str:
    return "  ".join(f"{item['token']} {item['cosine']:.2f}" for item in vector["nearest"])
