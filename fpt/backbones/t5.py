"""A `families.Family`: the only file that spells T5's names of modules and weights (1.0, 1.1, Flan, mT5, ByT5 …).

Letters: B batch, S source, T target, D model, F neurons, V vocabulary.
"""

import copy
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration
from transformers.activations import NewGELUActivation
from transformers.initialization import no_init_weights

from fpt.backbones.shapes import STACKS, Selection, Shape, Stack, WeightSlice
from fpt.backbones.weights import WeightFiles
from fpt.errors import UserError, reason

MODELS = {"t5": (T5Config, T5ForConditionalGeneration), "mt5": (MT5Config, MT5ForConditionalGeneration)}
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
HEAD = "lm_head.weight"  # its name on disk


def read_config(values: dict[str, Any], where: str) -> T5Config:
    """The configuration that a config.json's values make, without dropout; `where` names its origin in errors."""
    # Dropout is captured when modules are built, and prompt tuning wants none. T5's start token has no default.
    stated = {key: value for key, value in values.items() if value is not None}
    try:
        config = MODELS[values["model_type"]][0](**{"decoder_start_token_id": 0, **stated, "dropout_rate": 0.0})
        skeleton(config, Shape(Stack(1, 1), Stack(1, 1)))
    except Exception as error:  # transformers validates with many exception types, some only when modules are built
        raise UserError(f"{where}: the configuration is not valid ({reason(error)})") from None
    return config


def skeleton(config: T5Config, shape: Shape) -> Any:
    """A model of the given shape on the meta device, none of which trains; its embeddings are one tensor.

    So is the head, unless checkpoints of this configuration have one of their own. The stacks' widths may differ, which
    a T5Config cannot say: its d_ff is the wider one.
    """
    config = copy.deepcopy(config)
    config.num_layers, config.num_decoder_layers = shape.encoder.blocks, shape.decoder.blocks
    config.d_ff = max(shape.encoder.neurons, shape.decoder.neurons)
    config.use_cache = False
    with torch.device("meta"), no_init_weights():
        model = MODELS[config.model_type][1](config)
        for name in STACKS:
            for block in blocks_of(model, name):
                _resize(block.layer[-1].DenseReluDense, shape.stack(name).neurons)
        tie_embeddings(model, model.shared.weight)
        if _unties(config):  # a fresh model is always tied
            model.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
    return model.requires_grad_(False).eval()


def _resize(ffn: Any, neurons: int) -> None:
    for name in ("wi", "wi_0", "wi_1"):
        if hasattr(ffn, name):
            setattr(ffn, name, nn.Linear(getattr(ffn, name).in_features, neurons, bias=False))
    ffn.wo = nn.Linear(neurons, ffn.wo.out_features, bias=False)
    if isinstance(ffn.act, NewGELUActivation):
        ffn.act = nn.GELU(approximate="tanh")  # the same in one step, where transformers takes eight


def blocks_of(model: Any, stack: str) -> list[Any]:
    """A stack's blocks, in order; each gives a tuple, hidden states [B, positions, D] first."""
    return list(getattr(model, stack).block)


def states_before(model: Any, ids: torch.Tensor, mask: torch.Tensor, block: int) -> torch.Tensor:
    """What the encoder's block of that number takes in, [B, S, D], for source ids [B, S]."""
    embedded = model.shared(ids)
    return through_blocks(model, embedded, mask, 0, block) if block else embedded


def encoded_from(model: Any, states: torch.Tensor, mask: torch.Tensor, block: int) -> torch.Tensor:
    """The encoder's output [B, S, D] from what its block of that number takes in."""
    return model.encoder.final_layer_norm(through_blocks(model, states, mask, block, None))


def through_blocks(model: Any, states: torch.Tensor, mask: torch.Tensor, first: int, last: int | None) -> torch.Tensor:
    """Encoder states [B, S, D] after block number `last` - 1, from those before block number `first`.

    Two calls, the second from where the first ended, are the encoder without its last norm. The position bias depends
    on distances alone: what is put before the sequence in between leaves the others' biases as they are.
    """
    bias = _masked(_position_bias(model.encoder, states), _attended(mask))
    for block in blocks_of(model, "encoder")[first:last]:
        states = block(states, position_bias=bias)[0]
    return states


def decoded(model: Any, ids: torch.Tensor, states: torch.Tensor, mask: torch.Tensor, texts: int = 1) -> torch.Tensor:
    """Decoder states [B, T, D] for ids [B, T] put in, from the encoder's output [B, S, D] and its mask.

    Of several equally long `texts` in a row none sees another: each is decoded as if it were alone, and they share what
    the decoder makes of the encoder's output.
    """
    stack, length = model.decoder, ids.shape[1]
    inputs = stack.embed_tokens(ids)
    # Padding comes last and the decoder looks back only, so its real positions need no further mask.
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
        )[0]
    return stack.final_layer_norm(inputs)


def decoded_next(model: Any, ids: torch.Tensor, states: torch.Tensor, mask: torch.Tensor, cache: Cache) -> torch.Tensor:
    """Decoder states [B, 1, D] for one more id [B, 1] behind those in the cache, which takes it in."""
    return model.decoder(
        input_ids=ids,
        encoder_hidden_states=states,
        encoder_attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state


def _position_bias(stack: Any, states: torch.Tensor) -> torch.Tensor:
    """What a stack adds to its attention's scores by distance, [1, heads, L, L] for states [B, L, D]."""
    length = states.shape[1]
    return stack.block[0].layer[0].SelfAttention.compute_bias(length, length, device=states.device)


def _attended(mask: torch.Tensor) -> torch.Tensor | None:
    """Which positions of a padded sequence are attended to, [B, 1, 1, S]; None: all, as a CPU can be asked.

    A card would have to finish what it is at before it could answer.
    """
    if mask.device.type == "cpu" and bool(mask.all()):
        return None
    return mask[:, None, None].bool()


def _masked(bias: torch.Tensor, attended: torch.Tensor | None) -> torch.Tensor:
    """A bias with the least number where nothing is attended to, in one piece.

    The library makes this anew in every block, which keeps it for the way back; made once, all blocks share it.
    """
    if attended is not None:
        bias = torch.where(attended, bias, torch.finfo(bias.dtype).min)
    return bias.contiguous()


def head_logits(model: Any, states: torch.Tensor) -> torch.Tensor:
    """Vocabulary logits [..., V] of decoder states [..., D], which T5 1.0 scales by D^-½."""
    if not _unties(model.config):
        states = states * model.config.d_model**-0.5
    return model.lm_head(states)


def checkpoint_blocks(model: Any) -> None:
    """Have training keep each block's input alone, and compute the rest again on the way back.

    Exact, since without dropout nothing in a block is random; and idle where no gradient is asked for. transformers'
    own way would need train mode, in which generation loses its cache and attention's bias wants a gradient.
    """
    for stack in STACKS:
        for block in blocks_of(model, stack):
            # A strong reference would be a cycle, and keep a stage's weights in memory while the next is built.
            block.forward = partial(_run_checkpointed, weakref.ref(block))


def _run_checkpointed(reference: Any, *inputs: Any, **more: Any) -> Any:
    block = reference()
    run = partial(type(block).forward, block)
    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False, **more)


def activations_of(model: Any, stack: str) -> list[nn.Linear]:
    """The modules whose input is a block's FFN activation (after the gate), [B, positions, F], block by block."""
    return [block.layer[-1].DenseReluDense.wo for block in blocks_of(model, stack)]


def body_sources(selection: Selection, model: Any) -> Iterator[tuple[str, WeightSlice]]:
    """For every tensor of a partial PLM but embedding and head: its name there, and where it comes from."""
    for stack in STACKS:
        kept = selection.stack(stack)
        for name, _ in model.get_submodule(f"{stack}.block").named_parameters():
            position, rest = name.split(".", 1)
            # The bias of the whole stack lives in its first block, whichever block is first here.
            block = 0 if "relative_attention_bias" in rest else kept.blocks[int(position)]
            neurons = kept.neurons[int(position)] if kept.neurons and "DenseReluDense" in rest else None
            axis = "columns" if ".wo." in rest else "rows"
            yield f"{stack}.block.{name}", WeightSlice(f"{stack}.block.{block}.{rest}", **{axis: neurons})
        norm = f"{stack}.final_layer_norm.weight"
        yield norm, WeightSlice(norm)


def embedding_name(files: WeightFiles) -> str:
    """The input embedding's name on disk: whichever alias the checkpoint was saved under."""
    return next((name for name in (*EMBEDDINGS, HEAD) if name in files), EMBEDDINGS[0])


def tie_embeddings(model: Any, embedding: torch.Tensor) -> None:
    """Give all that embeds, and the head, the one embedding [V, D]."""
    shared = nn.Parameter(embedding, requires_grad=False)
    model.shared.weight = shared
    for name in STACKS:
        getattr(model, name).embed_tokens.weight = shared
    model.lm_head.weight = shared


def _unties(config: T5Config) -> bool:
    """Whether checkpoints of this configuration have a head of their own: all but T5 1.0, which scales its states."""
    return not getattr(config, "scale_decoder_outputs", False)


def add_tokens(model: Any, vectors: torch.Tensor, first: int) -> None:
    """Give a model input embeddings [N, D] for tokens from id `first` on, none of which it can say.

    Rows that no token has are used before the table grows. The head's row for each is the mean of the others' rows:
    its logit is then the mean of theirs, which the largest of them exceeds. A tied head becomes one of its own, or it
    would have the vectors as rows; T5 1.0's scale D^-½ goes into its weights.
    """
    table, head, last = model.shared.weight, model.lm_head.weight, first + len(vectors)
    rows = torch.cat([table, table.new_zeros(max(last - len(table), 0), table.shape[1])])
    rows[first:last] = vectors
    if not _unties(model.config):
        head, model.config.scale_decoder_outputs = head * model.config.d_model**-0.5, False
    silent = head[:first].mean(0, keepdim=True)
    head = torch.cat([head[:first], silent.expand(last - min(first, len(head)), -1), head[last:]])
    model.config.vocab_size = len(rows)
    tie_embeddings(model, rows)
    model.lm_head.weight = nn.Parameter(head, requires_grad=False)


def checkpoint_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The tensors of a partial PLM as a configuration of the library can say their shapes.

    The narrower stack's FFN is padded with zero neurons, which add exactly nothing: a config.json has one d_ff.
    """
    width = model.config.d_ff
    tensors = model.state_dict()
    for name, tensor in tensors.items():
        if "DenseReluDense" in name:
            missing = width - tensor.shape[1 if ".wo." in name else 0]
            tensors[name] = nn.functional.pad(tensor, (0, missing) if ".wo." in name else (0, 0, 0, missing))
    return tensors


def checkpoint_values(model: Any, original: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What config.json and generation_config.json of a saved partial PLM say, from the backbone's `original`."""
    settled = {  # what building set aside, and what transformers 5 writes wrongly for a head of its own
        "use_cache": original.get("use_cache", True),
        "dropout_rate": original.get("dropout_rate", 0.1),
        "tie_word_embeddings": model.lm_head.weight is model.shared.weight,
    }
    # transformers sizes its cache by the encoder's depth, which fails for a deeper decoder.
    return settled, {"use_cache": model.config.num_decoder_layers <= model.config.num_layers}
