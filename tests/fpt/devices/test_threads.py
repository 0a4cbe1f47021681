"""How OpenMP's threads wait, which it reads once, when it is loaded."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TELL = "import ctypes, sys, fpt; ctypes.CDLL(sys.argv[1])"


def told(**environment: str) -> str:
    """What torch's own OpenMP says of itself in a process that has imported fpt."""
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    library = next((Path(spec.origin).parent / "lib").glob("libgomp*"), None)
    if library is None:
        pytest.skip("this torch brings no OpenMP along")
    known = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", TELL, str(library)],
        env={**known, "OMP_DISPLAY_ENV": "TRUE", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def test_threads_sleep_while_they_wait_unless_told_otherwise() -> None:
    """Those that spin take a core from each other where another program has one."""
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told()
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in told(OMP_WAIT_POLICY="ACTIVE")
