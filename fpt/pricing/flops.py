"""What a shape costs: parameters, bytes and FLOPs, without weights.

FLOPs come from torch's counter on the meta device. Blocks of a stack cost the same, so one block of each stack is
counted and multiplied; and its count is a polynomial in the two lengths, so a few counts give it for every length. An
update is priced at twice its forward pass: going back through a frozen model costs the same matrix products once
more, for the activations' gradients alone. Attention's own products cost twice theirs on the way back; like the paper,
which leaves them out altogether, the price does not count that (3 to 4 % of an update of T5-Large at 512 tokens).
Blocks below a late prompt are priced once, since nothing goes back through them.
"""

from functools import cache, partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config

from fpt.backbones.families import family_of
from fpt.backbones.quantised import bytes_at_once, layers_of, packed_bytes
from fpt.backbones.shapes import Shape, Stack
from fpt.config.schema import PromptConfig
from fpt.pricing.activations import peaks
from fpt.prompts.kinds import kind_of

SOFT = PromptConfig()
_prices: dict[str, "Price"] = {}


def price_of(config: T5Config) -> "Price":
    """The prices of a model's parts; counted once for each model."""
    return _prices.setdefault(config.to_json_string(use_diff=False), Price(config))


class Price:
    """Prices of the partial PLMs of one backbone."""

    def __init__(self, config: T5Config) -> None:
        self._config = config
        self._skeleton = partial(family_of(config).skeleton, config)
        self.d_model: int = config.d_model
        self._encoder = cache(self._encoder_block)
        self._decoder = cache(self._decoder_block)
        self.sizes = cache(self._sizes)
        self.packed_weights = cache(self._packed_weights)
        self.peaks = cache(partial(peaks, config))

    def forward(
        self, shape: Shape, *, batch: int, source: int, target: int, below: int = 0, prompt: PromptConfig = SOFT
    ) -> int:
        """FLOPs of a forward pass.

        Of `source` positions some are the prompt's; encoder blocks `below` do not see it, and have the others alone.
        """
        lower = self.below(shape, batch=batch, source=source - prompt.length, blocks=below)
        upper = self.below(shape, batch=batch, source=source, blocks=shape.encoder.blocks - below)
        own, own_square, cross, both = self._decoder(shape.decoder.neurons)
        block = own * target + own_square * target**2 + cross * source + both * source * target
        head = 2 * target * self.d_model * self._config.vocab_size
        making = sum(kind_of(prompt).flops(source - prompt.length, self.d_model))
        return lower + upper + batch * (making + shape.decoder.blocks * block + head)

    def update(
        self,
        shape: Shape,
        *,
        batch: int,
        source: int,
        target: int,
        below: int = 0,
        prompt: PromptConfig = SOFT,
        is_kept: bool = False,
    ) -> int:
        """FLOPs of a forward pass, and of a backward pass through what sees the prompt; arguments are `forward`'s.

        With `is_kept` the states below the prompt are there already.
        """
        both = 2 * self.forward(shape, batch=batch, source=source, target=target, below=below, prompt=prompt)
        lower = self.below(shape, batch=batch, source=source - prompt.length, blocks=below)
        # What makes the vectors learns, so its second layer has two gradients; its first layer's input has none.
        _, second = kind_of(prompt).flops(source - prompt.length, self.d_model)
        return both - (2 if is_kept else 1) * lower + batch * second

    def below(self, shape: Shape, *, batch: int, source: int, blocks: int) -> int:
        """FLOPs of `source` positions going through `blocks` blocks of the encoder."""
        linear, square = self._encoder(shape.encoder.neurons)
        return batch * blocks * (linear * source + square * source**2)

    def parameters(self, shape: Shape) -> int:
        """How many frozen parameters a partial PLM has, embedding and head included, a tied head once."""
        return sum(self.sizes(shape))

    def weight_bytes(self, shape: Shape, dtype: str, quantize: str = "none") -> int:
        """Bytes that they take, in a precision or packed."""
        return self.packed_weights(shape, dtype, quantize)[0]

    def _sizes(self, shape: Shape) -> list[int]:
        return [parameter.numel() for parameter in self._skeleton(shape).parameters()]

    def _packed_weights(self, shape: Shape, dtype: str, quantize: str) -> tuple[int, int]:
        """Bytes of all weights; and of one made whole, at most."""
        width, model = getattr(torch, dtype).itemsize, self._skeleton(shape)
        layers = layers_of(family_of(self._config), model) if quantize != "none" else []
        whole = self.parameters(shape) - sum(layer.weight.numel() for layer in layers)
        packed = sum(packed_bytes(layer, quantize) for layer in layers)
        return whole * width + packed, max((bytes_at_once(layer, quantize, width) for layer in layers), default=0)

    def _encoder_block(self, neurons: int) -> tuple[int, int]:
        """Coefficients of S and S² in the FLOPs of an encoder block."""
        block = Stack(1, neurons)
        encoder = self._skeleton(Shape(block, block)).get_encoder()
        once, twice = (_count(encoder, inputs_embeds=self._states(source)) for source in (1, 2))
        return _linear_and_square(once, twice)

    def _decoder_block(self, neurons: int) -> tuple[int, int, int, int]:
        """Coefficients of T, T², S and S·T in the FLOPs of a decoder block."""
        block = Stack(1, neurons)
        decoder = self._skeleton(Shape(block, block)).get_decoder()

        def count(source: int, target: int) -> int:
            states = self._states(source)
            return _count(decoder, inputs_embeds=self._states(target), encoder_hidden_states=states, use_cache=False)

        short, long = count(2, 1) - count(1, 1), count(2, 2) - count(1, 2)
        both, cross = long - short, 2 * short - long
        own, own_square = _linear_and_square(count(1, 1) - cross - both, count(1, 2) - cross - 2 * both)
        return own, own_square, cross, both

    def _states(self, length: int) -> torch.Tensor:
        return torch.empty(1, length, self._config.d_model, device="meta")


def _linear_and_square(once: int, twice: int) -> tuple[int, int]:
    """The coefficients of x and x² in a polynomial without a constant, from its values at 1 and 2."""
    square = (twice - 2 * once) // 2
    return once - square, square


def _count(stack: Any, **inputs: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        stack(**inputs)
    return counter.get_total_flops()
