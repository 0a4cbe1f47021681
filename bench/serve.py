"""How many questions `fpt serve` answers, and how soon: `python -m bench.serve run=DIR [--clients 1,8,32]`.

The service runs in a process of its own, as one starts it, and is asked over its socket by so many clients at once,
each of which asks its next question when the last is answered. Texts are the run's validation inputs; other words go to
`fpt serve`.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from statistics import quantiles

import httpx2

from bench.runs import table
from fpt.runs.run import open_run


@contextmanager
def served(words: Sequence[str]) -> Iterator[str]:
    """Within, `fpt serve` answers at this address."""
    command = [sys.executable, "-m", "fpt", "serve", *words, "port=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while " at http://" not in said:
            said = process.stderr.readline()
            if process.poll() is not None:
                raise SystemExit(said or "fpt serve ended")
        yield said.partition(" at ")[2].partition(";")[0]
        process.terminate()


async def asked(url: str, texts: Sequence[str], clients: int, seconds: float) -> tuple[list[float], dict[str, int]]:
    """Seconds that each answer took, and what the service counted meanwhile."""
    rest, took = cycle(texts), list[float]()
    limits = httpx2.Limits(max_connections=clients)
    async with httpx2.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

        async def ask(until: float) -> None:
            while time.perf_counter() < until:
                start = time.perf_counter()
                answer = await client.post("/predict", json={"text": next(rest)})
                answer.raise_for_status()
                took.append(time.perf_counter() - start)

        await ask(time.perf_counter() + 0.1)  # what is done once, at the first question
        took.clear()
        before = (await client.get("/health")).json()
        until = time.perf_counter() + seconds
        await asyncio.gather(*(ask(until) for _ in range(clients)))
        after = (await client.get("/health")).json()
    return took, {name: after[name] - before[name] for name in ("answered", "batches")}


def row(took: Sequence[float], counted: dict[str, int], clients: int, seconds: float) -> list[str]:
    """A row of the table."""
    parts = quantiles(took, n=100)
    milliseconds = [f"{1000 * value:.0f} ms" for value in (parts[49], parts[98])]
    batch = counted["answered"] / counted["batches"]
    return [str(clients), f"{len(took) / seconds:.1f}", *milliseconds, f"{batch:.1f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="run=DIR")
    parser.add_argument("--clients", default="1,8,32", help="how many ask at once (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="for each number of clients (default %(default)s)")
    options, words = parser.parse_known_args()
    lines = open_run(options.run.removeprefix("run=")).predictions
    texts = [line["input"] for line in lines]
    rows = []
    with served([options.run, *words]) as url:
        for clients in map(int, options.clients.split(",")):
            found = asyncio.run(asked(url, texts, clients, options.seconds))
            rows.append(row(*found, clients, options.seconds))
    print(table(("clients", "answers a second", "median", "99 %", "texts in a batch"), rows), end="")


if __name__ == "__main__":
    main()
