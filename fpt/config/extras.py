"""Which settings need a package that is not always installed? Asked without importing any."""

from importlib.util import find_spec

from fpt.errors import UserError


def check_quantize(quantize: str) -> None:
    """Refuse weights of few bits where nothing can pack them."""
    if quantize != "none" and find_spec("bitsandbytes") is None:
        raise UserError(
            f"engine.quantize={quantize}: needs bitsandbytes, which is not installed; pip install 'fpt[quantize]', or"
            " engine.quantize=none does without"
        )
