"""Which settings need something that is not always installed? Asked without importing any."""

import os
import shutil
from importlib.util import find_spec

from fpt.errors import UserError


def check_quantize(quantize: str) -> None:
    """Refuse weights of few bits where nothing can pack them.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if quantize != "none" and find_spec("bitsandbytes") is None:
        raise UserError(
            f"engine.quantize={quantize}: needs bitsandbytes, which is not installed; pip install 'fpt[quantize]', or"
            " engine.quantize=none does without"
        )


def check_compile(compile: str) -> None:
    """Refuse to compile blocks where there is no compiler, which torch would find out in the first update.

    Raises:
        UserError: there is none.
    """
    named = os.environ.get("CC")
    if compile != "none" and not any(map(shutil.which, [named] if named else ("gcc", "clang"))):
        raise UserError(
            f"engine.compile={compile}: needs a C compiler, and {named or 'gcc or clang'} is not here; install one,"
            " name it in CC, or take engine.compile=none"
        )
