"""What a stage's updates took at their peak: what torch held on a CUDA device, or what the process grew by."""

import ctypes
import re
from contextlib import suppress
from pathlib import Path

import psutil
import torch

PROCESS = Path("/proc/self")  # Linux's


class PeakMemory:
    """The peak since `begin`, of this process and its device."""

    def __init__(self, device: torch.device) -> None:
        """To be made before the first model: on a CPU, what the process holds now does not count."""
        _give_back()
        self._device, self._base = device, psutil.Process().memory_info().rss
        self._is_known = device.type == "cuda"

    def begin(self) -> None:
        """Forget what was before."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        _give_back()
        try:
            (PROCESS / "clear_refs").write_text("5")  # resets VmHWM
            self._is_known = True
        except OSError:  # no Linux, or not allowed
            self._is_known = False

    @property
    def bytes(self) -> int:
        """The peak; 0 where that cannot be known."""
        if not self._is_known:
            return 0
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        highest = re.search(r"^VmHWM:\s+(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
        return max(0, 1024 * int(highest[1]) - self._base) if highest else 0


def _give_back() -> None:
    """Let the system have what the process has freed, which else counts as held; glibc can."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
