"""What libraries say to their own users stays off the screen."""

import logging
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["bitsandbytes.backends.cpu.ops", "DeepSpeed"])
def test_advice_is_not_shown_and_errors_are(caplog: pytest.LogCaptureFixture, name: str) -> None:
    """The tests' own processes are made quiet as the program is."""
    logger = logging.getLogger(name)
    logger.propagate = True
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community")
    logger.error("an error")
    assert {record.message for record in caplog.records} == {"an error"}  # of two handlers, if DeepSpeed has its own


def test_nor_is_it_in_a_program_that_imports_fpt() -> None:
    code = "import fpt, logging; logging.getLogger('bitsandbytes.backends.cpu.ops').warning('no kernels')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b""
