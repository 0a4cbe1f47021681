"""How the embedded backbone was made: `python -m pretraining.recipe` makes it again, from nothing.

A vocabulary first, then phases: reading of short passages by a shallow model (span corruption and questions), reading
of longer ones with twice the blocks, adaptation to instructions, and to rules that a text states. Once the model is
whole, blocks and neurons are left out at random, so that partial models stay useful. A run that was interrupted goes on
from its own last state.

Under `torchrun --nproc-per-node N -m pretraining.recipe` each batch is shared among N processes.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import T5Config, T5ForConditionalGeneration

from fpt.backbones.tiny import FOLDER
from pretraining import card, corpus, instructions, network, vocabulary
from pretraining.corpus import Maker
from pretraining.instructions import ADAPTATION
from pretraining.rules import CUSTOMS, MORE_CUSTOMS

Pair = tuple[list[int], list[int]]
Batch = tuple[Tensor, Tensor]  # source [B, S] padded with 0, target [B, T] padded with -100


@dataclass(frozen=True)
class Phase:
    """A stretch of training: on what, with how deep a model, and from which learning rate to which."""

    name: str
    updates: int
    statements: int  # in a passage, at most
    mixture: Mapping[Maker, float]
    encoder_layers: int
    decoder_layers: int
    lr_from: float
    lr_to: float
    blocks: float = 0.0  # the chance that an update leaves out some blocks
    neurons: float = 0.0  # and some neurons


def mixed(first: Mapping[Maker, float], second: Mapping[Maker, float], share: float) -> dict[Maker, float]:
    """Two mixtures in one, of which the second has this share."""
    return {
        maker: part * weight / sum(mixture.values())
        for mixture, part in ((first, 1 - share), (second, share))
        for maker, weight in mixture.items()
    }


# Half of the updates leave out blocks: where four in five of the last phase did, the whole model answered 93 % of
# yes/no questions whose rules were told, not 99 %, and half of its encoder 82 % either way (`python -m bench.told`).
PHASES = (
    Phase("read 2", 2500, 2, corpus.READING, 4, 2, 1e-3, 1e-3),
    Phase("read 4", 3000, 4, corpus.READING, 8, 4, 1e-3, 1e-3, blocks=0.5, neurons=0.15),
    Phase("adapt", 5000, 4, mixed(ADAPTATION, CUSTOMS, 0.2), 8, 4, 1e-3, 3e-4, blocks=0.5, neurons=0.15),
    Phase("customs", 2400, 4, mixed(ADAPTATION, MORE_CUSTOMS, 0.7), 8, 4, 1e-3, 3e-5, blocks=0.5, neurons=0.15),
)
BATCH_SIZE = 32
# Batches are cut from this many batches' worth of examples sorted by length, so that little is padding.
POOL = 32
WARM_UP = 100
WEIGHT_DECAY = 0.01
# The learning rate's share for query and key maps, whose product T5 does not scale down: at the full rate attention
# hardens before it has learned what to look for.
MATCH_RATE = 0.3
SAVE_EVERY = 250
SCORED = 256
MAKERS: tuple[Maker, ...] = (*corpus.READING, instructions.instruct, *CUSTOMS)


def shape(vocabulary_size: int, phase: Phase) -> T5Config:
    """T5 v1.1 in small, as deep as a phase wants it."""
    return T5Config(
        vocab_size=vocabulary_size,
        d_model=128,
        d_kv=32,
        num_heads=4,
        d_ff=256,
        num_layers=phase.encoder_layers,
        num_decoder_layers=phase.decoder_layers,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )


def collate(pairs: Sequence[Pair]) -> Batch:
    """Pairs of token lists as one padded batch."""
    source_length = max(len(source) for source, _ in pairs)
    target_length = max(len(target) for _, target in pairs)
    sources = [source + [0] * (source_length - len(source)) for source, _ in pairs]
    targets = [target + [-100] * (target_length - len(target)) for _, target in pairs]
    return torch.tensor(sources), torch.tensor(targets)


def batches(phase: Phase, codec: vocabulary.Codec, *, seed: int, first: int) -> Iterator[Batch]:
    """A phase's batches from update `first` on; which they are depends on seed and update alone."""
    pool = first // POOL
    while True:
        stream = random.Random(f"{seed} {phase.name} {pool}")
        texts = corpus.pairs(phase.mixture, stream, most=phase.statements)
        pairs = [
            (codec.encode(source), codec.encode(target))
            for (source, target), _ in zip(texts, range(POOL * BATCH_SIZE), strict=False)
        ]
        pairs.sort(key=lambda pair: (len(pair[0]), len(pair[1])))
        cut = [pairs[at : at + BATCH_SIZE] for at in range(0, len(pairs), BATCH_SIZE)]
        stream.shuffle(cut)
        for chosen in cut[max(0, first - pool * POOL) :]:
            yield collate(chosen)
        pool += 1


def predict(model: T5ForConditionalGeneration, source: Tensor, target: Tensor) -> Tensor:
    """Logits [B, T, V] of every target token from those before it."""
    before = model.prepare_decoder_input_ids_from_labels(target)
    logits = model(input_ids=source, attention_mask=(source != 0).long(), decoder_input_ids=before).logits
    assert isinstance(logits, Tensor)
    return logits


def backward(model: T5ForConditionalGeneration, batch: Batch) -> float:
    """Gradients of the mean cross entropy of a batch's target tokens, over all processes; the mean itself."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    source, target = (part[rank::size].contiguous().to(model.device) for part in batch)
    logits = predict(model, source, target)
    loss = cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum") / (batch[1] != -100).sum()
    torch.autograd.backward(loss)
    total = loss.detach()
    if size > 1:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        together = torch.cat([total.reshape(1), *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(together)
        total, *parts = torch.split(together, [1, *(gradient.numel() for gradient in gradients)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
    return total.item()


@torch.no_grad()
def accuracies(
    model: T5ForConditionalGeneration, codec: vocabulary.Codec, *, statements: int, num: int
) -> dict[str, float]:
    """By kind of example, the share of target words predicted from those before; sentinels do not count."""
    scores = {}
    for maker in MAKERS:
        stream = random.Random(f"scores {maker.__name__}")
        right = total = 0
        for _ in range(0, num, 64):
            texts = [maker(stream, statements) for _ in range(64)]
            pairs = [(codec.encode(first), codec.encode(second)) for first, second in texts]
            source, target = (part.to(model.device) for part in collate(pairs))
            logits = predict(model, source, target)
            counted = (target > vocabulary.END) & (target < codec.first_sentinel)
            right += int(((logits.argmax(-1) == target) & counted).sum())
            total += int(counted.sum())
        scores[maker.__name__] = round(right / total, 3)
    return scores


@dataclass
class State:
    """Everything a run needs to go on: the model, its optimizer, how far it has come, and what was logged."""

    plan: list[int]  # the run's seed, its vocabulary's size and the updates of its phases
    model: T5ForConditionalGeneration
    optimizer: torch.optim.AdamW
    phase: int
    update: int
    seconds: float
    log: list[dict[str, Any]]

    def save(self, path: Path) -> None:
        """Write the state, complete or not at all."""
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plan": self.plan,
            "progress": [self.phase, self.update, self.seconds],
            "log": json.dumps(self.log),
        }
        aside = path.with_name(path.name + ".aside")
        torch.save(content, aside)
        aside.replace(path)


def _optimizer(model: nn.Module) -> torch.optim.AdamW:
    """AdamW in two groups: query and key maps, and all else."""
    match: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (match if name.endswith((".q.weight", ".k.weight")) else other).append(parameter)
    return torch.optim.AdamW(
        [{"params": other}, {"params": match}], lr=0.0, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
    )


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _leads() -> bool:
    """Whether this process, of all that share the batches, is the one that scores, prints and saves."""
    return not dist.is_initialized() or dist.get_rank() == 0


def _plan(phases: Sequence[Phase], vocabulary_size: int, seed: int) -> list[int]:
    return [seed, vocabulary_size, *(phase.updates for phase in phases)]


def _load(path: Path, phases: Sequence[Phase], vocabulary_size: int, seed: int) -> State:
    content = torch.load(path, weights_only=True)
    if content["plan"] != _plan(phases, vocabulary_size, seed):
        raise ValueError(
            f"{path} belongs to a run with another seed, vocabulary or number of updates: finish it or delete the file"
        )
    phase, update, seconds = content["progress"]
    model = network.lean(network.new(shape(vocabulary_size, phases[phase]), seed=0)).to(_device())
    model.load_state_dict(content["model"])
    optimizer = _optimizer(model)
    optimizer.load_state_dict(content["optimizer"])
    return State(content["plan"], model, optimizer, phase, update, seconds, json.loads(content["log"]))


def _start(phases: Sequence[Phase], vocabulary_size: int, seed: int) -> State:
    model = network.lean(network.new(shape(vocabulary_size, phases[0]), seed=seed)).to(_device())
    return State(_plan(phases, vocabulary_size, seed), model, _optimizer(model), 0, 0, 0.0, [])


def _enter(state: State, phases: Sequence[Phase], vocabulary_size: int, seed: int) -> None:
    """Go to the next phase: a deeper model if it wants one, and a fresh optimizer."""
    before, after = phases[state.phase], phases[state.phase + 1]
    state.phase += 1
    state.update = 0
    if (before.encoder_layers, before.decoder_layers) != (after.encoder_layers, after.decoder_layers):
        config = shape(vocabulary_size, after)
        state.model = network.lean(network.grown(state.model, config, seed=seed + 1)).to(_device())
    state.optimizer = _optimizer(state.model)


def learning_rate(phase: Phase, update: int) -> float:
    """Linear from the phase's first value to its last, after a short warm-up."""
    done = update / phase.updates
    return (phase.lr_from + (phase.lr_to - phase.lr_from) * done) * min(1.0, (update + 1) / WARM_UP)


def train_phase(state: State, phase: Phase, codec: vocabulary.Codec, *, seed: int, saved: Path) -> None:
    """Train through what is left of a phase, scoring and saving on the way."""
    supply = batches(phase, codec, seed=seed, first=state.update)
    losses: list[float] = []
    began = time.monotonic() - state.seconds
    with Progress(console=Console(stderr=True, highlight=False), disable=not _leads()) as progress:
        bar = progress.add_task(phase.name, total=phase.updates, completed=state.update)
        while state.update < phase.updates:
            losses.append(_update(state, phase, next(supply), seed=seed))
            progress.update(bar, completed=state.update)
            if _leads() and (state.update % SAVE_EVERY == 0 or state.update == phase.updates):
                num = min(SCORED, 64 + phase.updates)
                scores = accuracies(state.model, codec, statements=phase.statements, num=num)
                state.seconds = time.monotonic() - began
                line = {
                    "phase": phase.name,
                    "update": state.update,
                    "examples": state.update * BATCH_SIZE,
                    "loss": round(sum(losses) / len(losses), 4),
                    "seconds": round(state.seconds),
                    "processes": dist.get_world_size() if dist.is_initialized() else 1,
                    "scores": scores,
                }
                progress.console.print(json.dumps(line), markup=False, soft_wrap=True)
                state.log.append(line)
                state.save(saved)
                losses.clear()


def _update(state: State, phase: Phase, batch: Batch, *, seed: int) -> float:
    """One optimizer step; its loss."""
    other, match = state.optimizer.param_groups
    other["lr"] = learning_rate(phase, state.update)
    match["lr"] = other["lr"] * MATCH_RATE
    stream = random.Random(f"{seed} lacking {state.update}")
    with network.without_some(state.model, stream, blocks=phase.blocks, neurons=phase.neurons):
        loss = backward(state.model, batch)
    nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.update += 1
    return loss


def scaled(updates: int | None) -> tuple[Phase, ...]:
    """The phases with `updates` in all, or as they are."""
    total = sum(phase.updates for phase in PHASES)
    if updates is None:
        return PHASES
    return tuple(replace(phase, updates=max(1, phase.updates * updates // total)) for phase in PHASES)


def export(model: T5ForConditionalGeneration, folder: Path) -> None:
    """The model as an ordinary checkpoint in 16 bit, each file complete or as it was before."""
    # Saved as 16-bit numbers, computed with as 32-bit ones.
    model.config.dtype = torch.float32
    model.config.architectures = ["T5ForConditionalGeneration"]
    tensors = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("embed_tokens.weight")  # the same tensor as `shared.weight`
    }
    save_file(tensors, folder / ".weights", metadata={"format": "pt"})
    (folder / ".weights").chmod(0o644)
    (folder / ".weights").replace(folder / "model.safetensors")
    # As T5 1.1's own checkpoints say; transformers 5 writes true for every T5.
    values = json.loads(model.config.to_json_string(use_diff=False)) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def describe(state: State, phases: Sequence[Phase], folder: Path, *, seed: int) -> None:
    """Write the training log and the card."""
    lines = "".join(json.dumps(line) + "\n" for line in state.log)
    (folder / "training.jsonl").write_text(lines, encoding="utf-8")
    config = state.model.config
    shape = {
        "parameters": sum(parameter.numel() for parameter in state.model.parameters()),
        "encoder blocks": config.num_layers,
        "decoder blocks": config.num_decoder_layers,
        "d_model": config.d_model,
        "attention heads": config.num_heads,
        "d_kv": config.d_kv,
        "d_ff": config.d_ff,
        "vocabulary, sentinels included": config.vocab_size,
    }
    settings = {
        "weight_decay": WEIGHT_DECAY,
        "batch_size": BATCH_SIZE,
        "warm_up": WARM_UP,
        "match_rate": MATCH_RATE,
        "seed": seed,
        "seconds": state.seconds,
        "machine": _machine(state.log),
        "num": SCORED,
    }
    text = card.write(shape, [asdict(phase) for phase in phases], state.log, settings)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _machine(log: Sequence[Mapping[str, Any]]) -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    processes = sorted({line["processes"] for line in log})
    threads = f"{' and later '.join(map(str, processes))} process(es) of {torch.get_num_threads()} thread(s)"
    return f"{os.cpu_count()} cores ({torch.backends.cpu.get_cpu_capability()}), {threads}"


def make(folder: Path, *, updates: int | None = None, seed: int = 0) -> None:
    """Everything in the folder, going on from an interrupted run's `.training.pt` if there is one."""
    phases = scaled(updates)
    folder.mkdir(parents=True, exist_ok=True)
    if _leads():
        vocabulary.train(corpus.words(), folder)
    if dist.is_initialized():
        dist.barrier()
    codec = vocabulary.Codec(folder)
    saved = folder / ".training.pt"
    state = _load(saved, phases, codec.size, seed) if saved.exists() else _start(phases, codec.size, seed)
    train_phase(state, phases[state.phase], codec, seed=seed, saved=saved)
    while state.phase + 1 < len(phases):
        _enter(state, phases, codec.size, seed)
        train_phase(state, phases[state.phase], codec, seed=seed, saved=saved)
    if _leads():
        export(state.model, folder)
        describe(state, phases, folder, seed=seed)
        card.record_hashes(folder)
        saved.unlink()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pretraining.recipe", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder (default: fpt/backbones/tiny)")
    parser.add_argument("--updates", type=int, help="in all, spread over the phases as they are")
    parser.add_argument("--seed", type=int, default=0)
    threads = (os.cpu_count() or 1) // int(os.environ.get("WORLD_SIZE", 1))
    parser.add_argument("--threads", type=int, default=max(1, threads), help="of each process (default %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    try:
        make(options.out, updates=options.updates, seed=options.seed)
    except ValueError as error:
        parser.error(str(error))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
