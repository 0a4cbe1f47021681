"""Processes that begin with everything imported, forked from one that did nothing else: an import takes seconds."""

import gc
import os
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from resource import RLIMIT_FSIZE, setrlimit
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from fpt.__main__ import main
from fpt.runs.progress import quiet_libraries

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["stages.run", "stages.planning.decide", "deepspeed.runtime.engine"])


def _environment() -> None:
    """What the processes find, set before the first of them: what they free goes back to the system at once."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"


class Command:
    """`fpt WORDS` in a process of its own; its output goes to files beside `place`, or to pipes that are there.

    Standard input comes from a file or pipe beside it that ends in .in, if there is one.
    """

    def __init__(self, words: list[str], place: Path, *, longest_file: int | None = None) -> None:
        _environment()
        self.place = place
        place.parent.mkdir(parents=True, exist_ok=True)
        self.process = FORKS.Process(target=_run, args=(words, place, longest_file))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def status(self) -> int | None:
        """None while it runs; negative if a signal killed it."""
        return self.process.exitcode

    def ended(self, seconds: float) -> tuple[str, str]:
        """Standard output and standard error, when it has ended, which it must within so many seconds."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still running after {seconds} seconds: {self.said()}")
        return self.said()

    def said(self) -> tuple[str, str]:
        out, err = (self.place.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
        return out, err


def _run(words: list[str], place: Path, longest_file: int | None) -> None:
    _redirect(place)
    if place.with_suffix(".in").exists():
        sys.stdin = place.with_suffix(".in").open()
    if longest_file is not None:
        setrlimit(RLIMIT_FSIZE, (longest_file, longest_file))
    sys.exit(main(words))


def _redirect(place: Path) -> None:
    gc.freeze()  # what was imported is not looked through again
    for number, (name, suffix) in enumerate((("stdout", ".out"), ("stderr", ".err")), 1):
        os.dup2(os.open(place.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        # Anew, since a pipe has no place to seek, as the file that was there before has.
        setattr(sys, name, os.fdopen(number, "w", buffering=1 if name == "stderr" else -1, closefd=False))


def run_code(code: str, place: Path) -> str:
    """What a program prints, which runs in the folder `place` in a process of its own and must come to its end."""
    _environment()
    said = place / "said"
    process = FORKS.Process(target=_run_code, args=(code, place, said))
    process.start()
    process.join()
    out, err = (said.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
    for suffix in (".out", ".err"):
        said.with_suffix(suffix).unlink()
    assert process.exitcode == 0, err
    return out


def _run_code(code: str, place: Path, said: Path) -> None:
    os.chdir(place)
    _redirect(said)
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})


def in_processes(
    number: int,
    call: Callable[[], int | None],
    place: Path,
    *,
    seconds: float = 500,
) -> None:
    """Make a call, which returns 0 or None, in so many processes, which find what torchrun tells its own."""
    _environment()
    place.parent.mkdir(parents=True, exist_ok=True)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    same = {"WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    same |= {"TORCHELASTIC_USE_AGENT_STORE": True}
    ranks = []
    for own in range(number):
        tells = same | {"RANK": own, "LOCAL_RANK": own}
        log = place.with_suffix(f".rank-{own}.txt")
        ranks.append(FORKS.Process(target=_as_rank, args=(tells, call, log), daemon=True))
    for rank in ranks:
        rank.start()
    running = {rank.sentinel: rank for rank in ranks}
    while running:
        ended = wait(list(running), seconds)
        if not ended or any(running.pop(sentinel).exitcode for sentinel in ended):
            for rank in ranks:
                rank.kill()
            raise AssertionError("".join(file.read_text()[-4000:] for file in place.parent.glob("**/*rank*")))


def _as_rank(told: dict[str, Any], call: Callable[[], int | None], log: Path) -> None:
    os.environ |= {name: str(value) for name, value in told.items()}
    _redirect(log)
    quiet_libraries()
    assert not call()
