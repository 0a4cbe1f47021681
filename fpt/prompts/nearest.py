"""Says what a soft prompt learned in words: the vocabulary items nearest to each of its vectors.

Letters: P prompt, D model, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fpt.backbones.backbone import Backbone

AT_ONCE = 2**14  # how many embeddings are in memory, in float32
NUMBER = 3  # of nearest items, where nothing else is asked for


def nearest(prompt: Tensor, backbone: Backbone, number: int = NUMBER) -> dict[str, Any]:
    """The norm of each vector of a prompt [P, D], and its nearest vocabulary items by cosine with their embeddings.

    Beside the norms stands the median of the embeddings' own.
    """
    cosines, norms = _beside_embeddings(prompt.float(), backbone)
    best = cosines.topk(min(number, len(norms)))
    return {
        "typical_norm": norms.median().item(),
        "vectors": [
            {"norm": norm, "nearest": _items(backbone, ids, values)}
            for norm, ids, values in zip(prompt.float().norm(dim=1).tolist(), best.indices, best.values, strict=True)
        ],
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
