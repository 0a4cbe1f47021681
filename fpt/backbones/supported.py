"""Which models are supported, and how their config.json says their shape.

Apart from `families`, which has what else a family knows: this is asked before torch is imported, and that needs it.
"""

from typing import Any

from fpt.backbones.shapes import Shape, Stack
from fpt.errors import UserError

FAMILIES = ("t5", "mt5")  # model_type in config.json; T5 1.0, 1.1, LM-adapted, Flan and ByT5 are all t5
REFUSED = {
    "umt5": "UMT5 has a position bias in every block",
    "longt5": "LongT5 has another attention",
    "t5gemma": "T5Gemma is another architecture",
    "t5gemma2": "T5Gemma 2 is another architecture",
    "switch_transformers": "Switch Transformers has experts in place of FFN neurons",
}
NEEDED = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size")


def read_shape(values: dict[str, Any], where: str) -> Shape:
    """The full model's size, from the values of its config.json; `where` names their origin in errors.

    Raises:
        UserError: the model is not of a supported family, or a value is missing or not a positive number.
    """
    family = values.get("model_type")
    if family not in FAMILIES:
        reason = REFUSED.get(str(family), f"its model_type is '{family}'")
        raise UserError(f"{where}: not a supported model: {reason}. Supported are T5, T5 1.1, Flan-T5, mT5 and ByT5")
    sizes: dict[str, Any] = {key: values.get(key) for key in NEEDED}
    decoder = values.get("num_decoder_layers")
    sizes["num_decoder_layers"] = sizes["num_layers"] if decoder is None else decoder
    for key, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{where}: config.json says {key}={value!r}; expected a whole number above 0")
    neurons = values["d_ff"]
    return Shape(Stack(values["num_layers"], neurons), Stack(sizes["num_decoder_layers"], neurons))
