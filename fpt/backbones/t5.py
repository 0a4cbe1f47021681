"""T5, mT5 and UMT5: what the family table cannot describe, and passes that compute T5's position bias only once.

Letters: B batch, S source, T target, D model, F neurons, V vocabulary.
"""

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers import PreTrainedConfig
from transformers.activations import NewGELUActivation

from fpt.backbones.calls import Call
from fpt.backbones.family import Family
from fpt.backbones.shapes import Selection, Shape, Stack, WeightSlice
from fpt.backbones.weights import WeightFiles

HEAD = "lm_head.weight"  # its name on disk


class UMT5(Family):
    """What all T5s share: one FFN size in config.json for both stacks, and heads that transformers takes to be tied."""

    def _completed(self, values: dict[str, Any]) -> dict[str, Any]:
        # Modules read the dropout rate when built, and prompt tuning uses none. T5's start token has no default.
        return {"decoder_start_token_id": 0, **values, "dropout_rate": 0.0}

    def skeleton(self, config: PreTrainedConfig, shape: Shape, kept: Selection | None = None) -> Any:
        """As every family's; the two stacks' FFN sizes may differ, and the T5Config's d_ff is the larger one."""
        config, wide = copy.deepcopy(config), max(stack.neurons for stack in shape.values())
        config.use_cache = False
        model = super().skeleton(config, Shape(**{name: Stack(size.blocks, wide) for name, size in shape.items()}))
        with torch.device("meta"):
            for name, size in shape.items():
                for block in self.blocks_of(model, name):
                    _resize(block.layer[-1].DenseReluDense, size.neurons)
        for module in model.modules():
            if type(module).__name__.endswith("LayerNorm"):
                module.__class__ = _fused(type(module))  # type: ignore[arg-type]
        self.set_head(model, is_own=self._unties(config))  # a fresh model is always tied
        return model

    def has_own_head(self, files: WeightFiles) -> bool:
        """Whether the head differs from the embedding; older T5 1.0 files hold a second copy of the tied head."""
        embedding = self.on_disk(files, self.row.embedding)
        if HEAD not in files or embedding == HEAD:
            return False
        return not torch.equal(files.read(HEAD), files.read(embedding))

    def set_head(self, model: Any, *, is_own: bool) -> None:
        """Give the model an untied head, or the embedding as its head."""
        vocabulary, width = model.shared.weight.shape
        with torch.device("meta"):
            model.lm_head = nn.Linear(width, vocabulary, bias=False).requires_grad_(False)
        if not is_own:
            model.lm_head.weight = model.shared.weight
        model.config.tie_word_embeddings = not is_own

    def head_logits(self, model: Any, states: Tensor) -> Tensor:
        """Vocabulary logits [..., V] from the decoder's output [..., D], which some tied models scale by 1/√D."""
        if self._scales(model.config):
            states = states * model.config.d_model**-0.5
        return model.lm_head(states)

    def _scales(self, config: PreTrainedConfig) -> bool:
        """Whether the head's input is scaled: in UMT5 where the head is tied."""
        return bool(config.tie_word_embeddings)

    def _unties(self, config: PreTrainedConfig) -> bool:
        """Whether checkpoints of this configuration have an untied head, as all published UMT5s have."""
        return True

    def add_tokens(self, model: Any, vectors: Tensor, first: int) -> None:
        """As every family's; a tied head, which would get the vectors as rows, is untied, and its scale folded in."""
        table, head, last = model.shared.weight, model.lm_head.weight, first + len(vectors)
        rows = torch.cat([table, table.new_zeros(max(last - len(table), 0), table.shape[1])])
        rows[first:last] = vectors
        if self._scales(model.config):
            head, model.config.scale_decoder_outputs = head * model.config.d_model**-0.5, False
        silent = head[:first].mean(0, keepdim=True)
        head = torch.cat([head[:first], silent.expand(last - min(first, len(head)), -1), head[last:]])
        model.config.vocab_size, model.config.tie_word_embeddings = len(rows), False
        shared = nn.Parameter(rows, requires_grad=False)
        for module in (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens):
            module.weight = shared
        model.lm_head.weight = nn.Parameter(head, requires_grad=False)

    def checkpoint_tensors(self, model: Any, files: WeightFiles) -> dict[str, Tensor]:
        """As every family's; the smaller FFNs are padded with zero neurons, as config.json has only one d_ff."""
        width = model.config.d_ff
        tensors = super().checkpoint_tensors(model, files)
        for name, tensor in tensors.items():
            if "DenseReluDense" in name:
                missing = width - tensor.shape[1 if ".wo." in name else 0]
                tensors[name] = nn.functional.pad(tensor, (0, missing) if ".wo." in name else (0, 0, 0, missing))
        return tensors

    def checkpoint_values(self, model: Any, original: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """As every family's: values that building overrode, and one that transformers 5 gets wrong for untied heads."""
        values = {
            "use_cache": original.get("use_cache", True),
            "dropout_rate": original.get("dropout_rate", 0.1),
            "tie_word_embeddings": model.lm_head.weight is model.shared.weight,
        }
        # transformers sizes its cache by the encoder's depth, which fails for a deeper decoder.
        return values, {"use_cache": model.config.num_decoder_layers <= model.config.num_layers}


def _resize(ffn: Any, neurons: int) -> None:
    for name in ("wi", "wi_0", "wi_1"):
        if hasattr(ffn, name):
            setattr(ffn, name, nn.Linear(getattr(ffn, name).in_features, neurons, bias=False).requires_grad_(False))
    ffn.wo = nn.Linear(neurons, ffn.wo.out_features, bias=False).requires_grad_(False)
    if isinstance(ffn.act, NewGELUActivation):
        ffn.act = nn.GELU(approximate="tanh")  # the same in one kernel instead of transformers' eight


@cache
def _fused(norm: type[Any]) -> type[Any]:
    """A subclass of transformers' norm that runs one kernel on a GPU instead of eight; on a CPU eight are faster."""

    class Norm(norm):  # type: ignore[misc]
        def forward(self, states: Tensor) -> Tensor:
            if states.device.type == "cpu":
                return super().forward(states)
            return rms_norm(states, self.weight.shape, self.weight, self.variance_epsilon)

    return Norm


class T5(UMT5):
    """T5 and mT5, in whose stacks all blocks share the position bias of the first one."""

    def _scales(self, config: PreTrainedConfig) -> bool:
        return bool(getattr(config, "scale_decoder_outputs", False))

    def _unties(self, config: PreTrainedConfig) -> bool:
        """Only T5 1.0 has a tied head, and it alone scales the head's input."""
        return not self._scales(config)

    def _slice(self, name: str, selection: Selection) -> WeightSlice:
        whole = super()._slice(name, selection)
        if "relative_attention_bias" not in name:
            return whole
        return WeightSlice(name)  # it belongs to the full model's first block, whichever block is the first here

    def states_before(self, model: Any, ids: Tensor, mask: Tensor, block: int | None, **instead: Any) -> Tensor:
        """Hidden states before a block of the encoder; before the first they are the embeddings, without any bias."""
        states = model.shared(ids)
        if block == 0:
            return states
        return self.through(model, states, self.arguments(model, states, mask), 0, block, **instead)

    def arguments(
        self, model: Any, states: Tensor, mask: Tensor, positions: Tensor | None = None, **given: Any
    ) -> list[Call]:
        """As every family's: one bias for all blocks; it depends on distances alone, so it is right with a prompt."""
        bias = _masked(_position_bias(model.encoder, states), _attended(mask))
        return [{"position_bias": bias}] * len(model.encoder.block)

    def decoded(
        self, model: Any, ids: Tensor, states: Tensor, mask: Tensor, texts: int = 1, prompt: Tensor | None = None
    ) -> Tensor:
        """As every family's; several texts share the keys and values of the encoder's output."""
        stack = model.decoder
        inputs = stack.embed_tokens(ids)
        if prompt is not None:
            vectors = prompt.to(inputs.dtype)[:, None].expand(-1, texts, -1, -1)
            inputs = torch.cat([vectors, inputs.unflatten(1, (texts, -1))], 2).flatten(1, 2)
        length = inputs.shape[1]
        # Padding comes last and the decoder looks back only, so padding needs no mask.
        one = torch.ones(length // texts, length // texts, device=ids.device).tril()
        bias = _position_bias(stack, inputs[:, : len(one)]).repeat(1, 1, texts, texts)
        bias = _masked(bias, torch.kron(torch.eye(texts, device=ids.device), one).bool())
        nothing = inputs.new_zeros(1, stack.config.num_heads, 1, 1).expand(-1, -1, length, states.shape[1])
        cross = _masked(nothing, _attended(mask))
        for block in stack.block:
            inputs = block(
                inputs,
                position_bias=bias,
                encoder_hidden_states=states,
                encoder_decoder_position_bias=cross,
                is_causal=False,  # the bias contains the causal mask, for all blocks
            )[0]
        return stack.final_layer_norm(inputs)


def _position_bias(stack: Any, states: Tensor) -> Tensor:
    """A stack's position bias [1, heads, L, L] for states [B, L, D]."""
    length = states.shape[1]
    return stack.block[0].layer[0].SelfAttention.compute_bias(length, length, device=states.device)


def _attended(mask: Tensor) -> Tensor | None:
    """The attention mask [B, 1, 1, S] of a padding mask; None: nothing is padded.

    Only a CPU checks for padding: on a GPU the check would have to wait for the work queued before it.
    """
    if mask.device.type == "cpu" and bool(mask.all()):
        return None
    return mask[:, None, None].bool()


def _masked(bias: Tensor, attended: Tensor | None) -> Tensor:
    """A contiguous position bias with the lowest number at masked positions.

    In transformers every block makes its own and keeps it for the backward pass; here all blocks share one.
    """
    if attended is not None:
        bias = torch.where(attended, bias, torch.finfo(bias.dtype).min)
    return bias.contiguous()
