"""Exports prompts of one or several runs, with their partial PLM or without, in formats that other libraries read."""

import json
from collections.abc import Iterable, Mapping
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from fpt.backbones.backbone import open_backbone
from fpt.backbones.location import is_on_this_machine
from fpt.backbones.shapes import Selection, StackSelection
from fpt.data.encoding import encode
from fpt.data.tokens import tokens_of
from fpt.prompts.files import refuse_other_tokenizer
from fpt.prompts.kinds import TENSOR, kind_of
from fpt.runs.files import check_writable, new_folder
from fpt.runs.progress import Progress
from fpt.runs.run import PROMPT
from fpt.sharing.export import ExportRequest, card_of_prompt, card_of_tokens, with_prompts, write_adapter, written
from fpt.tasks.catalogue import rules_of
from fpt.tasks.task import Example
from fpt.training.checkpoint import dump_prompt
from stages import partial
from stages.using.learned import LearnedPrompt, from_run, shared_part


def export(
    prompts: Mapping[str, ExportRequest], progress: Progress, texts: Iterable[list[Example]] = ()
) -> dict[str, Any]:
    """Write the prompts' export with its model card.

    Only to=tokens takes several prompts, which it names. `texts` is for to=embeds, which writes their embeddings
    after the prompt's.
    """
    request = next(iter(prompts.values()))
    check_writable(request.folder.parent, f"output={request.folder}")
    with new_folder(request.folder) as aside:
        what = request.what
        if request.to == "tokens":
            what = _write_tokens(prompts, aside, progress)
        else:
            _write(request, aside, progress, texts)
    names = sorted(file.name for file in request.folder.iterdir())
    return {"to": request.to, "prompt": what, "folder": str(request.folder), "files": names}


def _write(request: ExportRequest, folder: Path, progress: Progress, texts: Iterable[list[Example]]) -> None:
    """Write one prompt, and its model if the format includes one."""
    learned = from_run(request.run, request.number)
    model = request.run.config.model
    if is_on_this_machine(model):  # a local folder may have changed since the run; the Hub keeps what was there
        refuse_other_tokenizer(learned.name, learned.vocabulary, open_backbone(model, with_weights=False))
    if request.to == "hf":
        with progress.console.status("writing the model"):
            backbone = open_backbone(model)
            partial.save(partial.build(backbone, learned.selection(backbone)), backbone, folder)
    if request.to == "embeds":
        _write_embeds(request, learned, folder, progress, texts)
    elif request.to == "peft":
        write_adapter(folder, request, learned.tensors[TENSOR])
    elif request.to == "npy":  # as google-research/prompt-tuning's `prompts.from_array` takes it, float32
        np.save(array := BytesIO(), learned.tensors[TENSOR].float().numpy())
        (folder / "prompt.npy").write_bytes(array.getvalue())  # numpy's own error on a full disk does not say so
    elif request.to == "thunlp":  # what `Trainer.load_checkpoint` of thunlp/FastPromptTuning reads
        updates = {"epoch": 0, "num_updates": request.run.result["updates"]}
        prompt = {"prompt": learned.tensors[TENSOR].float().clone(), "args": {"tune_method": "prompt"}}
        torch.save({**prompt, "current_state": updates}, packed := BytesIO())
        (folder / "checkpoint.pt").write_bytes(packed.getvalue())
    else:
        use = kind_of(learned.config).metadata(request.layer)
        (folder / PROMPT).write_bytes(dump_prompt(learned.tensors, stage=request.stage.name, **use))
    (folder / "README.md").write_text(card_of_prompt(request), encoding="utf-8")


def _write_tokens(prompts: Mapping[str, ExportRequest], folder: Path, progress: Progress) -> str:
    """Write a checkpoint in which every prompt is a row of added tokens; returns a description for the user."""
    learned = {name: from_run(one.run, one.number) for name, one in prompts.items()}
    vectors = {name: prompt.tensors[TENSOR].float() for name, prompt in learned.items()}
    with progress.console.status("writing the model"):
        backbone = open_backbone(next(iter(prompts.values())).run.config.model)
        selected = shared_part([*learned.values()], backbone)
        tokenizer = with_prompts(backbone.tokenizer, {name: len(own) for name, own in vectors.items()})
        added, start = torch.cat(list(vectors.values())), len(backbone.tokenizer)
        model = partial.build(backbone, selected)
        backbone.family.add_tokens(model, added, start)
        partial.save(model, backbone, folder, tokenizer=tokenizer, suppressed=range(start, start + len(added)))
    _keep_rules(folder)
    (folder / "README.md").write_text(card_of_tokens(prompts), encoding="utf-8")
    return ", ".join(f"{written(name)} ({one.what} of {one.run.path})" for name, one in prompts.items())


def _write_embeds(
    request: ExportRequest, learned: LearnedPrompt, folder: Path, progress: Progress, texts: Iterable[list[Example]]
) -> None:
    """Write the input of the first block for every text, the prompt and then its embeddings [P+S, D], and the texts."""
    task, dtype = request.run.config.task, getattr(torch, request.run.result["dtype"])
    with progress.console.status("reading the embedding"):
        backbone = open_backbone(request.run.config.model)
        learned.selection(backbone)
        (stack,) = backbone.shape  # one block is enough: every partial PLM has the same embeddings
        body = partial.build(backbone, Selection(**{stack: StackSelection((0,))})).to(dtype)
    prompt, tokens = kind_of(learned.config).build(learned.tensors, 0), tokens_of(rules_of(task), backbone, task)
    embedded, lines = dict[str, torch.Tensor](), list[str]()
    with progress.console.status("embedding the texts"):
        for number, example in enumerate(chain.from_iterable(texts)):
            # Encoded as in `Predictor`; a target is not needed here.
            batch = encode([example], tokens, source_length=task.source_length, target_length=2).batch([0])
            states = backbone.family.states_before(body, batch.source, batch.mask, 0)
            states, _ = prompt.joined(states, batch.mask, batch.mask)
            embedded[str(number)] = states[0].detach().to(dtype).contiguous()
            lines.append(json.dumps({"id": str(number), "input": example.source}, ensure_ascii=False) + "\n")
    packed = save(embedded, {"format": "pt"})  # `save_file` lets nobody else read it
    (folder / "embeds.safetensors").write_bytes(packed)
    (folder / "texts.jsonl").write_text("".join(lines), encoding="utf-8")


def _keep_rules(folder: Path) -> None:
    """Have a saved tokenizer opened as tokenizer.json says: a family's own class would drop the rules added to it."""
    file = folder / "tokenizer_config.json"
    values = json.loads(file.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
