"""What one should know before using the embedded backbone: the card that its recipe writes beside the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpt.backbones import tiny

_ABOUT = """\
# The embedded backbone

A very small T5 v1.1 (gated GELU, separate output head, relative position bias) that comes with fpt, so that first runs,
tests and demonstrations need no network. It is a stand-in for a real pre-trained T5, not a language model: it has only
ever read the generated world of `pretraining/world/scenes.py`, short English sentences about people, places and things,
their properties, comparisons, times, negation, a little inference, and made-up customs. Text is folded to lower case;
words outside that world fall into fragments that it has never learned. Use a real T5 for anything that matters.

Names are divided among splits by a hash: the backbone has seen the pre-training names only, no name and no fact of a
task's training or validation split. In adaptation each of the six tasks' forms is shown with instructions that ask for
different things in many words, and now and then bare, answered as any of them wants it: without an instruction, or a
tuned prompt in its place, the model cannot know which is meant. Other texts state rules, drawn anew in each, that say
what values count as ("bakers are zorks"), and ask for what follows (`pretraining/world/customs.py`): the model knows
how to use rules, and a prompt tuned on a land's tasks has to hold those that hold there. What prompts tuned on it
score: `docs/results.md`.

Made by `make backbone` (`python -m pretraining.recipe`); the log is in `training.jsonl`.
"""

_PHASES = """\
## Training

AdamW (betas 0.9 and 0.98, weight decay {weight_decay}, gradient norm clipped to 1), batches of {batch_size}, learning
rate linear within a phase after {warm_up} updates of warm-up, {match_rate:g} of it for query and key maps, no dropout,
32-bit arithmetic. Seed {seed}; {seconds:.0f} seconds on {machine}.
The start is mimetic: attention maps that look for equal tokens and copy what they find, two heads per encoder attention
that look at the words nearby. "read" is span corruption and questions, "adapt" adds instructions and some customs,
"customs" has more of these. Before "read 4" new blocks, which add nothing at first, are put between the old ones; from
then on a random part of the blocks, or of the FFN neurons, is left out of so many of the updates.

| phase | encoder + decoder blocks | statements at most | lacking blocks | lacking neurons | updates | examples | \
learning rate | loss |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

_SCORES = """
## Scores

After the last phase, on new texts about the pre-training names: the share of target words that the whole model predicts
from those before (teacher-forced, {num} examples each, sentinels not counted).

| kind of example | share |
| --- | --- |
"""

_KINDS = {
    "restore": "span corruption of a text that tells its facts twice",
    "seek": "values asked for by where, what, when; some are not told",
    "judge": "yes/no questions about a passage",
    "infer": "does a sentence follow: yes, no or maybe",
    "match": "do two questions ask the same",
    "fill": "whom a sentence with a gap is about",
    "condense": "a sentence that sums up a document, in one of three forms",
    "instruct": "one of many things asked for by an instruction",
    "is_one": "rules told: is somebody a zork",
    "follows": "rules told: does it follow that somebody is, or is not, a zork",
    "alike": "rules told: do two questions ask for the same class",
    "who": "rules told: who is a zork, if anybody",
    "which": "rules told: which of three is a zork",
    "classes": "rules told: the classes of two",
    "name": "rules told: what somebody is called",
    "look": "rules told: what a value is called",
}


def write(
    shape: Mapping[str, int],
    phases: Sequence[Mapping[str, Any]],
    log: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> str:
    """The card's text, from the model's shape, the phases, the training log and the optimizer's settings."""
    sizes = "".join(f"| {name} | {number:,} |\n" for name, number in shape.items())
    rows = "".join(_row(phase, log) for phase in phases)
    scores = "".join(f"| {_KINDS[kind]} | {share:.3f} |\n" for kind, share in log[-1]["scores"].items())
    return (
        f"{_ABOUT}\n## Shape\n\n| what | number |\n| --- | --- |\n{sizes}\n"
        f"{_PHASES.format(**settings)}{rows}{_SCORES.format(**settings)}{scores}"
    )


def _row(phase: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> str:
    last = [line for line in log if line["phase"] == phase["name"]][-1]
    blocks = f"{phase['encoder_layers']} + {phase['decoder_layers']}"
    rate = f"{phase['lr_from']:g} to {phase['lr_to']:g}"
    return (
        f"| {phase['name']} | {blocks} | {phase['statements']} | {phase['blocks']:.0%} | {phase['neurons']:.0%} "
        f"| {phase['updates']:,} | {last['examples']:,} "
        f"| {rate} | {last['loss']:.3f} |\n"
    )


def record_hashes(folder: Path) -> None:
    """Write down the hash of every file that the model is opened from, by which `fpt doctor` knows it."""
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in tiny.FILES}
    (folder / tiny.HASHES).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")
