"""What the trainer asks of a model's family, answered from its row for any architecture of the library.

Letters: B batch, S source, T target, L positions, D model, F neurons, V vocabulary.
"""

import copy
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    CONFIG_MAPPING,
    Cache,
    PreTrainedConfig,
)
from transformers.initialization import no_init_weights

from fpt.backbones import calls
from fpt.backbones.rows import Ffn, Row, StackRow, value_at
from fpt.backbones.shapes import Selection, Shape, Stack, WeightSlice
from fpt.backbones.weights import WeightFiles
from fpt.errors import UserError, reason

Places = tuple[str, ...]  # where one tensor stands in a model: in several places if it is tied


class Family:
    """A family that a row describes. Models are Any: transformers' classes are annotated in part."""

    def __init__(self, row: Row) -> None:
        """Of this row."""
        self.row = row

    # What a model is made of.

    def read_config(self, values: dict[str, Any], where: str) -> PreTrainedConfig:
        """The configuration that a config.json's values make; `where` names its origin in errors."""
        stated = {key: value for key, value in values.items() if value is not None}
        try:
            config = CONFIG_MAPPING[stated.pop("model_type")](**self._settled(stated))
            self.skeleton(config, Shape(**dict.fromkeys(self.row.stacks, Stack(1, 1))))
        except Exception as error:  # transformers validates with many exception types, some only with the modules
            raise UserError(f"{where}: the configuration is not valid ({reason(error)})") from None
        return config

    def _settled(self, values: dict[str, Any]) -> dict[str, Any]:
        """A config.json's values with what they leave out, or get wrong for prompt tuning."""
        return values

    def skeleton(self, config: PreTrainedConfig, shape: Shape, kept: Selection | None = None) -> Any:
        """A model of the given shape on the meta device, none of which trains; what is tied is one parameter.

        Its blocks are of the types of those `kept`, or of the first ones.
        """
        config = copy.deepcopy(config)
        for name, stack in self.row.stacks.items():
            blocks = kept[name].blocks if kept else range(shape[name].blocks)
            self._resize(value_at(config, stack.config) if stack.config else config, stack, shape[name], blocks)
        with torch.device("meta"), no_init_weights():
            model = getattr(transformers, self.row.reads.auto_class).from_config(config, dtype=torch.float32)
            for path in self.row.unread:
                parent, _, name = path.rpartition(".")
                setattr(model.get_submodule(parent), name, None)
            model.tie_weights()
        return model.requires_grad_(False).eval()

    def _resize(self, config: Any, stack: StackRow, size: Stack, blocks: Any) -> None:
        """Have a stack's part of the configuration say another size."""
        if (types := getattr(config, "layer_types", None)) is not None:
            config.layer_types = [types[block] for block in blocks]
        setattr(config, stack.num_blocks, size.blocks)
        setattr(config, stack.num_neurons, size.neurons)

    def fill_buffers(self, model: Any, device: torch.device | str) -> None:
        """Compute what a model has besides weights, as rotary frequencies, which its skeleton has not."""
        for module in model.modules():
            missing = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
            for name in missing:
                module._buffers[name] = torch.empty_like(module._buffers[name], device=device)
            if missing:
                parent = next(owner for owner in self._owners(model) if module in set(owner.modules()))
                parent._init_weights(module)

    def _owners(self, model: Any) -> list[Any]:
        """The model and its parts that know how to make buffers, the innermost first."""
        return [module for module in model.modules() if hasattr(module, "_init_weights")][::-1]

    def width(self, config: PreTrainedConfig) -> int:
        """D, of the stack that a prompt enters."""
        return _width(config, self.row.first)

    def last_width(self, config: PreTrainedConfig) -> int:
        """D, of the stack before the head."""
        return _width(config, self.row.last)

    def start_token(self, config: PreTrainedConfig) -> int:
        """The token that a target begins with."""
        return int(value_at(config, self.row.start))

    def pad_token(self, config: PreTrainedConfig) -> int:
        """What stands behind an output's end; -1 is how some Llamas say that they have none."""
        pad = config.pad_token_id
        return self.end_tokens(config)[0] if pad is None or pad < 0 else int(pad)

    def end_tokens(self, config: PreTrainedConfig) -> list[int]:
        """The tokens that end an output."""
        ends = config.eos_token_id
        return [int(end) for end in (ends if isinstance(ends, list) else [ends]) if end is not None]

    def blocks_of(self, model: Any, stack: str) -> list[Any]:
        """A stack's blocks, in order."""
        row = self.row.stacks[stack]
        return list(model.get_submodule(row.module).get_submodule(row.blocks))

    def activations_of(self, model: Any, stack: str) -> list[nn.Module]:
        """The modules whose input is a block's FFN activation (after the gate), [B, positions, F], block by block."""
        ffn = self.row.stacks[stack].ffn
        return [block.get_submodule(f"{ffn.module}.{ffn.out}".lstrip(".")) for block in self.blocks_of(model, stack)]

    def checkpoint_blocks(self, model: Any) -> None:
        """Have training keep each block's input alone, and compute the rest again on the way back.

        Exact, since without dropout nothing in a block is random; and idle where no gradient is asked for.
        transformers' own way would need train mode, in which generation loses its cache.
        """
        for stack in self.row.stacks:
            for block in self.blocks_of(model, stack):
                # A strong reference would be a cycle, and keep a stage's weights in memory while the next is built.
                block.forward = partial(_run_checkpointed, weakref.ref(block))

    # Passes.

    def states_before(self, model: Any, ids: Tensor, mask: Tensor, block: int) -> Tensor:
        """What the first stack's block of that number takes in, [B, L, D], for ids [B, L]."""
        states, recorded = self._record(model, input_ids=ids, attention_mask=mask)
        return self.through(model, states, recorded, 0, block)

    def encoded_from(self, model: Any, states: Tensor, mask: Tensor, block: int) -> Tensor:
        """The first stack's output [B, L, D] from what its block of that number takes in."""
        return self.normed(model, self.through(model, states, self.arguments(model, states, mask), block, None))

    def embedded(self, model: Any, ids: Tensor, positions: Tensor) -> Tensor:
        """What the first stack's first block takes in, [B, L, D], for ids [B, L] at these positions [B, L]."""
        return self._record(model, input_ids=ids, position_ids=positions)[0]

    def arguments(self, model: Any, states: Tensor, mask: Tensor, positions: Tensor | None = None) -> list[calls.Call]:
        """What the library calls each block of the first stack with, for states [B, L, D], whatever they are.

        Positions [B, L] are by default those in the row.
        """
        if self.row.positions is not None:  # which has been done, and has no place for all of a prompt's
            positions = mask.new_zeros(mask.shape)
        given = {} if positions is None else {"position_ids": positions}
        return self._record(model, inputs_embeds=states, attention_mask=mask, **given)[1]

    def through(
        self,
        model: Any,
        states: Tensor,
        recorded: list[calls.Call],
        first: int,
        last: int | None,
        **instead: Any,
    ) -> Tensor:
        """States [B, L, D] after block number `last` - 1 of the first stack, from those before number `first`."""
        return calls.run(self.blocks_of(model, self._first)[first:last], recorded[first:last], states, **instead)

    def normed(self, model: Any, states: Tensor) -> Tensor:
        """The first stack's output from its last block's."""
        row = self.row.first
        return states if row.norm is None else model.get_submodule(row.module).get_submodule(row.norm)(states)

    @property
    def _first(self) -> str:
        return next(iter(self.row.stacks))

    def _record(self, model: Any, **inputs: Any) -> tuple[Tensor, list[calls.Call]]:
        row = self.row.first
        more = {"use_cache": False} if self.row.reads.reads_target else {}
        return calls.record(model.get_submodule(row.module), row.blocks, row.norm, **inputs, **more)

    def decoded(self, model: Any, ids: Tensor, states: Tensor, mask: Tensor, texts: int = 1) -> Tensor:
        """Decoder states [B, T, D] for ids [B, T] put in, from the encoder's output [B, S, D] and its mask.

        Of several equally long `texts` in a row none sees another: each is decoded as if it were alone.
        """
        if texts > 1:
            parts = ids.view(len(ids), texts, -1).unbind(1)
            return torch.cat([self.decoded(model, part, states, mask) for part in parts], 1)
        # Padding comes last and the decoder looks back only, so all of it may count as real.
        decoder = model.get_submodule(self.row.stacks["decoder"].module)
        decoded: Tensor = decoder(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return decoded

    def decoded_next(self, model: Any, ids: Tensor, states: Tensor, mask: Tensor, cache: Cache) -> Tensor:
        """Decoder states [B, 1, D] for one more id [B, 1] behind those in the cache, which takes it in."""
        return model.get_submodule(self.row.stacks["decoder"].module)(
            input_ids=ids,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    def head_logits(self, model: Any, states: Tensor) -> Tensor:
        """Vocabulary logits [..., V] of the last stack's states [..., D]."""
        for path in self.row.head:
            states = model.get_submodule(path)(states)
        cap = value_at(model.config, self.row.last.key("final_logit_softcapping"))
        return states if cap is None else torch.tanh(states / cap) * cap

    # Weights on disk.

    def sources(self, selection: Selection, model: Any) -> Iterator[tuple[Places, WeightSlice]]:
        """For every tensor of a partial PLM: where it stands there, and what of the full model's it is.

        Tensors of a module follow each other, and those of a part come before those of the whole.
        """
        for places in sorted(_places(model), key=lambda names: (-names[0].count("."), names[0].rpartition(".")[0])):
            yield places, self._slice(places[0], selection)

    def _slice(self, name: str, selection: Selection) -> WeightSlice:
        """What of the full model's tensors the one of that name in a partial PLM is."""
        for stack, row in self.row.stacks.items():
            prefix = f"{row.module}.{row.blocks}."
            if not name.startswith(prefix):
                continue
            number, rest = name.removeprefix(prefix).split(".", 1)
            kept = selection[stack]
            whole = f"{prefix}{kept.blocks[int(number)]}.{rest}"
            if kept.neurons is None:
                return WeightSlice(whole)
            return self._cut(whole, row.ffn, rest, kept.neurons[int(number)])
        return WeightSlice(name)

    def _cut(self, whole: str, ffn: Ffn, rest: str, neurons: tuple[int, ...]) -> WeightSlice:
        """The rows or columns of a block's tensor that belong to its kept neurons; all where it has none of them."""
        layer, kind = rest.removeprefix(f"{ffn.module}.".lstrip(".")).rsplit(".", 1)
        if not rest.startswith(ffn.module) or layer not in (*ffn.into, ffn.out):
            return WeightSlice(whole)
        if kind == "bias":
            return WeightSlice(whole, rows=neurons) if layer in ffn.into else WeightSlice(whole)
        if (layer in ffn.into) != ffn.transposed:
            return WeightSlice(whole, rows=neurons)
        return WeightSlice(whole, columns=neurons)

    def on_disk(self, files: WeightFiles, places: Places) -> str:
        """The name that a checkpoint has for a tensor of the full model which stands in these places."""
        return next((name for name in self._names(places) if name in files), places[0])

    def _names(self, places: Places) -> list[str]:
        """What checkpoints may call a tensor in these places: older ones, a norm's weight gamma and its bias beta."""
        names = list(places)
        for start, saved in self.row.saved:
            names += [saved + place.removeprefix(start) for place in places if place.startswith(start)]
        names += [name.replace("LayerNorm.weight", "LayerNorm.gamma") for name in names if "LayerNorm" in name]
        return names + [name.replace("LayerNorm.bias", "LayerNorm.beta") for name in names if "LayerNorm" in name]

    def check_tied(self, config: PreTrainedConfig, files: WeightFiles, *, has_own_head: bool) -> None:
        """Refuse weights in which a tensor that the model has once stands several times, with unlike numbers."""
        model = self.skeleton(config, Shape(**dict.fromkeys(self.row.stacks, Stack(1, 1))))
        self.set_head(model, is_own=has_own_head)
        for places in _places(model):
            first, *others = [name for name in dict.fromkeys(self._names(places)) if name in files] or [""]
            for other in others:
                if not torch.equal(files.read(first), files.read(other)):
                    raise UserError(
                        f"{files.folder}: '{first}' and '{other}' are one tensor by config.json, and differ in the"
                        " weights; if the head is one of its own, write tie_word_embeddings: false there"
                    )

    def embedding_name(self, files: WeightFiles) -> str:
        """The input embedding's name on disk."""
        return self.on_disk(files, self.row.embedding)

    def has_own_head(self, files: WeightFiles) -> bool:
        """Whether the weights have a head of their own whatever their configuration says."""
        return False

    def set_head(self, model: Any, *, is_own: bool) -> None:
        """Give a skeleton the head that its weights have, where its configuration cannot say it."""

    def add_tokens(self, model: Any, vectors: Tensor, first: int) -> None:
        """Give a model input embeddings [N, D] for tokens from id `first` on, none of which it can say.

        Rows that no token has are used before the table grows. The head's row for each is the mean of the others' rows:
        its logit is then the mean of theirs, which the largest of them exceeds.
        """
        raise UserError(f"to=tokens: is for T5, mT5 and UMT5, and this is {model.config.model_type}; to=hf takes it")

    def checkpoint_tensors(self, model: Any, files: WeightFiles) -> dict[str, Tensor]:
        """The tensors of a partial PLM as a configuration of the library can say their shapes."""
        unread = {
            name: files.read(name) for path in self.row.unread for name in files.names if name.startswith(f"{path}.")
        }
        return {**model.state_dict(), **unread}

    def checkpoint_values(self, model: Any, original: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What config.json and generation_config.json of a saved partial PLM say, from the backbone's `original`."""
        return {}, {}


def _places(model: Any) -> list[Places]:
    """Where each tensor of a model stands."""
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    return list(map(tuple, places.values()))


def num_inputs(layer: Any) -> int:
    """How many numbers a linear layer takes in, also one of GPT-2's; under ZeRO-3 its weight does not say."""
    return int(layer.in_features if hasattr(layer, "in_features") else layer.nx)


def _width(config: PreTrainedConfig, stack: StackRow) -> int:
    return int(value_at(config, stack.key(stack.width)))


def _run_checkpointed(reference: Any, *inputs: Any, **more: Any) -> Any:
    block = reference()
    run = partial(type(block).forward, block)
    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False, **more)
