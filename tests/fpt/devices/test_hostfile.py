"""What a hostfile says of machines and processes, and what is wrong with one, in one line."""

from pathlib import Path

import pytest

from fpt.devices.hostfile import slots
from fpt.errors import UserError


def test_the_machines_in_order_with_their_processes(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("# two\nnode2 slots=8\n\n  node1   slots=4  # older\n")
    assert list(slots(str(tmp_path / "hosts")).items()) == [("node2", 8), ("node1", 4)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# nobody\n", "names no machine; expected lines of 'host slots=N'"),
        ("node1\n", "'node1' is not of the form 'host slots=N', N at least 1"),
        ("node1 slots=0\n", "'node1 slots=0' is not of the form"),
        ("node1 slots=2\nnode1 slots=2\n", "names node1 twice"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(UserError) as caught:
        slots(str(tmp_path / "hosts"))
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"engine.hostfile={tmp_path / 'hosts'}: ")
