"""Builds and runs models of a family that a row describes, and finds their tensors in weight files.

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
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.initialization import no_init_weights

from fpt.backbones import calls
from fpt.backbones.family_table import FamilyRow, Ffn, value_at
from fpt.backbones.shapes import Selection, Shape, Stack, WeightSlice
from fpt.backbones.weights import WeightFiles
from fpt.errors import UserError, reason

Places = tuple[str, ...]  # the names of one tensor in a model: several if it is tied


class Family:
    """A family of models; their type is Any, as transformers annotates its classes only in part."""

    def __init__(self, row: FamilyRow) -> None:
        """Describe the family by this row."""
        self.row = row

    # What a model is made of.

    def read_config(self, values: dict[str, Any], where: str) -> PreTrainedConfig:
        """The configuration made of a config.json's values; `where` names their origin in errors."""
        stated = {key: value for key, value in values.items() if value is not None}
        try:
            config = CONFIG_MAPPING[stated.pop("model_type")](**self._completed(stated))
            self.skeleton(config, Shape(**dict.fromkeys(self.row.stacks, Stack(1, 1))))
        except Exception as error:  # transformers validates with many exception types, some only with the modules
            raise UserError(f"{where}: the configuration is not valid ({reason(error)})") from None
        return config

    def _completed(self, values: dict[str, Any]) -> dict[str, Any]:
        """A config.json's values, with missing ones added and those unsuited to prompt tuning replaced."""
        return values

    def skeleton(self, config: PreTrainedConfig, shape: Shape, kept: Selection | None = None) -> Any:
        """A frozen model of the given shape on the meta device; tied tensors are one parameter.

        Its blocks have the layer types of the `kept` blocks of the full model, or else of its first blocks.
        """
        config = copy.deepcopy(config)
        for name, stack in self.row.stacks.items():
            own: Any = value_at(config, stack.config)
            if types := getattr(own, "layer_types", None):
                own.layer_types = [types[block] for block in (kept[name].blocks if kept else range(shape[name].blocks))]
            setattr(own, stack.num_blocks, shape[name].blocks)
            setattr(own, stack.num_neurons, shape[name].neurons)
        with torch.device("meta"), no_init_weights():
            model = getattr(transformers, self.row.reads.auto_class).from_config(config, dtype=torch.float32)
            for path in self.row.unread:
                parent, _, name = path.rpartition(".")
                setattr(model.get_submodule(parent), name, None)
            model.tie_weights()
        return model.requires_grad_(False).eval()

    def fill_buffers(self, model: Any, device: torch.device | str) -> None:
        """Compute a skeleton's buffers: tensors that are not in weight files, such as rotary frequencies."""
        owners = [module for module in model.modules() if hasattr(module, "_init_weights")][::-1]  # innermost first
        for module in model.modules():
            missing = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
            for name in missing:
                module._buffers[name] = torch.empty_like(module._buffers[name], device=device)
            if missing:
                next(owner for owner in owners if module in set(owner.modules()))._init_weights(module)

    def start_token(self, config: PreTrainedConfig) -> int:
        """The token that a target begins with."""
        return int(value_at(config, self.row.start))

    def pad_token(self, config: PreTrainedConfig) -> int:
        """The token that outputs are padded with; an end token if the model has none, for which some Llamas say -1."""
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
        """Each block's FFN output layer, whose input is the activation after the gate, [B, L, F]."""
        ffn = self.row.stacks[stack].ffn
        return [block.get_submodule(f"{ffn.module}.{ffn.out}".lstrip(".")) for block in self.blocks_of(model, stack)]

    def checkpoint_blocks(self, model: Any) -> None:
        """Checkpoint activations: training stores only each block's input and recomputes the rest in the backward pass.

        Gradients are the same, as blocks without dropout are not random; without gradients nothing changes.
        transformers' own checkpointing needs train mode, in which generation loses its cache.
        """
        for stack in self.row.stacks:
            for block in self.blocks_of(model, stack):
                # A strong reference would be a cycle, and keep a stage's weights in memory while the next is built.
                block.forward = partial(_run_checkpointed, weakref.ref(block))

    # Passes.

    def states_before(self, model: Any, ids: Tensor, mask: Tensor, block: int | None, **instead: Any) -> Tensor:
        """The first stack's hidden states [B, L, D] before block number `block`, for token ids [B, L]."""
        states, recorded = self._record(model, input_ids=ids, attention_mask=mask)
        return self.through(model, states, recorded, 0, block, **instead)

    def embedded(self, model: Any, ids: Tensor, positions: Tensor) -> Tensor:
        """The first stack's embedded input [B, L, D], for token ids [B, L] at positions [B, L]."""
        return self._record(model, input_ids=ids, position_ids=positions)[0]

    def arguments(
        self, model: Any, states: Tensor, mask: Tensor, positions: Tensor | None = None, **given: Any
    ) -> list[calls.Call]:
        """The arguments that transformers passes to each block of the first stack, for hidden states [B, L, D].

        Positions [B, L] count from 0 unless given. With past_key_values the mask covers what these hold, too.
        """
        if self.row.positions is not None:  # added by the embedding already, which may have too few for a prompt
            positions = mask.new_zeros(states.shape[:2])
        if positions is not None:
            given["position_ids"] = positions
        return self._record(model, inputs_embeds=states, attention_mask=mask, **given)[1]

    def through(
        self, model: Any, states: Tensor, recorded: list[calls.Call], first: int, last: int | None, **instead: Any
    ) -> Tensor:
        """Run blocks `first` to `last` (exclusive) of the first stack on hidden states [B, L, D]."""
        blocks = self.blocks_of(model, next(iter(self.row.stacks)))
        return calls.run(blocks[first:last], recorded[first:last], states, **instead)

    def normed(self, model: Any, states: Tensor) -> Tensor:
        """The first stack's output: its last block's hidden states after the final norm."""
        row = self.row.first
        return states if row.norm is None else model.get_submodule(row.module).get_submodule(row.norm)(states)

    def _record(self, model: Any, **inputs: Any) -> tuple[Tensor, list[calls.Call]]:
        row = self.row.first
        more = {"use_cache": False} if self.row.reads.reads_target else {}
        return calls.record(model.get_submodule(row.module), row.blocks, row.norm, **inputs, **more)

    def decoded(
        self, model: Any, ids: Tensor, states: Tensor, mask: Tensor, texts: int = 1, prompt: Tensor | None = None
    ) -> Tensor:
        """The decoder's output [B, T, D] for its input ids [B, T], the encoder's output [B, S, D] and its mask.

        The ids may be several equally long `texts`, one after the other, each decoded as if it were alone, and with the
        vectors of a `prompt` [B, P, D] in front of it, if they are given.
        """
        if texts > 1:
            parts = ids.view(len(ids), texts, -1).unbind(1)
            return torch.cat([self.decoded(model, part, states, mask, prompt=prompt) for part in parts], 1)
        # Padding comes last and the decoder looks back only, so padding needs no mask.
        length = ids.shape[1] if prompt is None else prompt.shape[1] + ids.shape[1]
        real = ids.new_ones(len(ids), length)
        return self.decoder_output(model, ids, states, mask, prompt, attention_mask=real, use_cache=False)

    def decoder_output(
        self, model: Any, ids: Tensor, states: Tensor, mask: Tensor, prompt: Tensor | None, **more: Any
    ) -> Tensor:
        """The output of transformers' own decoder, which takes `more`, for ids [B, T] behind its prompt if any."""
        decoder = model.get_submodule(self.row.stacks["decoder"].module)
        inputs = {"input_ids": ids}
        if prompt is not None:
            embedded = decoder.embed_tokens(ids)
            vectors = prompt / prompt.shape[2] ** 0.5 if self.row.scales_inputs else prompt
            inputs = {"inputs_embeds": torch.cat([vectors.to(embedded.dtype), embedded], 1)}
        source = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
        decoded: Tensor = decoder(**inputs, **source, **more).last_hidden_state
        return decoded

    def head_logits(self, model: Any, states: Tensor) -> Tensor:
        """Vocabulary logits [..., V] from the last stack's output [..., D]."""
        for path in self.row.head:
            states = model.get_submodule(path)(states)
        cap = value_at(model.config, self.row.last.key("final_logit_softcapping"))
        return states if cap is None else torch.tanh(states / cap) * cap

    # Weights on disk.

    def sources(self, selection: Selection, model: Any) -> Iterator[tuple[Places, WeightSlice]]:
        """For each tensor of a partial PLM: its names there, and the part of the full model's weights that it is.

        A module's tensors are next to each other, after those of its submodules.
        """
        for places in sorted(_places(model), key=lambda names: (-names[0].count("."), names[0].rpartition(".")[0])):
            yield places, self._slice(places[0], selection)

    def _slice(self, name: str, selection: Selection) -> WeightSlice:
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
        """The rows or columns of a block's tensor for its kept FFN neurons; the whole tensor if it is no FFN weight."""
        layer, kind = rest.removeprefix(f"{ffn.module}.".lstrip(".")).rsplit(".", 1)
        has_neurons = layer in ffn.into or (layer, kind) == (ffn.out, "weight")
        if not rest.startswith(ffn.module) or not has_neurons:
            return WeightSlice(whole)
        is_by_row = kind == "bias" or (layer in ffn.into) != ffn.transposed
        return WeightSlice(whole, rows=neurons) if is_by_row else WeightSlice(whole, columns=neurons)

    def on_disk(self, files: WeightFiles, places: Places) -> str:
        """The name in a checkpoint of the tensor that has these names in the full model."""
        return next((name for name in self._names(places) if name in files), places[0])

    def _names(self, places: Places) -> list[str]:
        """The names that a tensor may have in checkpoints; older ones call a norm's weight gamma and its bias beta."""
        names = list(places)
        for start, saved in self.row.saved:
            names += [saved + place.removeprefix(start) for place in places if place.startswith(start)]
        names += [name.replace("LayerNorm.weight", "LayerNorm.gamma") for name in names if "LayerNorm" in name]
        return names + [name.replace("LayerNorm.bias", "LayerNorm.beta") for name in names if "LayerNorm" in name]

    def check_tied(self, config: PreTrainedConfig, files: WeightFiles, *, has_own_head: bool) -> None:
        """Refuse weights that hold several copies of a tied tensor with different values."""
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

    def has_own_head(self, files: WeightFiles) -> bool:
        """Whether the weights hold an untied head although their configuration does not say so."""
        return False

    def set_head(self, model: Any, *, is_own: bool) -> None:
        """Tie or untie a skeleton's head as in its weights, in families whose configuration does not say which."""

    def add_tokens(self, model: Any, vectors: Tensor, first: int) -> None:
        """Add input embeddings [N, D] for new tokens from id `first` on, which the model never generates.

        Unused rows of the embedding are filled before it grows. A new token's row in the head is the mean of all other
        tokens' rows, so that its logit is the mean of theirs and never the largest.
        """
        raise UserError(f"to=tokens: is for T5, mT5 and UMT5, and this is {model.config.model_type}; to=hf takes it")

    def checkpoint_tensors(self, model: Any, files: WeightFiles) -> dict[str, Tensor]:
        """The tensors of a partial PLM to save, in shapes that a transformers configuration can describe."""
        unread = {
            name: files.read(name) for path in self.row.unread for name in files.names if name.startswith(f"{path}.")
        }
        return {**model.state_dict(), **unread}

    def checkpoint_values(self, model: Any, original: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values to set in a saved config.json and generation_config.json; `original` is the backbone's config.json."""
        return {}, {}


def _places(model: Any) -> list[Places]:
    """All names of each tensor in a model; a tied one has several."""
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    return list(map(tuple, places.values()))


def num_inputs(layer: Any) -> int:
    """The input size of a linear layer, or of GPT-2's Conv1D; under ZeRO-3 the weight's shape does not tell it."""
    return int(layer.in_features if hasattr(layer, "in_features") else layer.nx)


def _run_checkpointed(reference: Any, *inputs: Any, **more: Any) -> Any:
    block = reference()
    run = partial(type(block).forward, block)
    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False, **more)
