"""What libraries say to their own users stays off the screen."""

import logging

import pytest


@pytest.mark.parametrize("name", ["bitsandbytes.backends.cpu.ops", "DeepSpeed"])
def test_advice_is_not_shown_and_errors_are(caplog: pytest.LogCaptureFixture, name: str) -> None:
    """The tests' own processes are made quiet as the program is."""
    logger = logging.getLogger(name)
    logger.propagate = True
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community")
    logger.error("an error")
    assert [record.message for record in caplog.records] == ["an error"]
