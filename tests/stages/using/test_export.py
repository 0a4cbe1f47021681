"""What is exported answers in other tools as it does here, says what it is, and leaves the run as it was."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from fpt.__main__ import main
from fpt.backbones import tiny
from fpt.backbones.backbone import open_backbone
from fpt.data.encoded import Batch, Encoded, RaggedRows
from fpt.prompts.files import open_prompt
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from fpt.runs.run import open_run
from stages import partial, selection
from tests.conftest import Outcome, quick_words, rewritten, save_checkpoint

Cli = Callable[..., Outcome]
TEXTS = ["question: is it red passage: the lamp is red .", "question: is it old", "passage: a stone is old . " * 4]
TARGETS = [[1100, 30, 1], [1100, 1], [1100, 31, 32, 1]]


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run in four stages, to export into."""
    return Path(shutil.copytree(finished, tmp_path / "finished"))


def prompted(run: Path, number: int | None = None) -> PromptedModel:
    """The run's prompt on its model, or a stage's on the stage's, as training has them."""
    records = open_run(run)
    stage = records.stages[(number or 0) - 1]
    chosen = selection.load(records.read(f"stages/{stage.name}/selection.safetensors"))
    body = partial.build(open_backbone(records.config.model), chosen)
    return prompted_model(body, SoftPrompt(records.prompt(stage if number else None)))


def batch(folder: Path | str) -> Batch:
    """Sources of unlike lengths, so that two of three are padded."""
    sources = AutoTokenizer.from_pretrained(folder)(TEXTS).input_ids
    return Encoded(RaggedRows.of(sources), RaggedRows.of(TARGETS)).batch([0, 1, 2])


def logits(model: PromptedModel, given: Batch) -> torch.Tensor:
    """[B, T, V] with the target given, from our embedded prompt and source."""
    embedded, mask = model.prompt.joined(model.body.get_input_embeddings()(given.source), given.mask, given.mask)
    found: torch.Tensor = model.body(inputs_embeds=embedded, attention_mask=mask, labels=given.labels).logits
    return found


def assert_same_answers(model: PromptedModel, theirs: Any, given: Batch) -> None:
    """Logits with the target given, and greedy generations, of a padded batch and of each example alone."""
    rows = [slice(0, 3), slice(0, 1), slice(1, 2), slice(2, 3)]
    for part in (Batch(given.source[row], given.mask[row], given.labels[row]) for row in rows):
        inputs = {"input_ids": part.source, "attention_mask": part.mask}
        with torch.no_grad():
            found = theirs(**inputs, labels=part.labels).logits
            torch.testing.assert_close(found, logits(model, part), rtol=1e-5, atol=1e-5)
        wanted = model.generate(part, max_new_tokens=6)
        assert torch.equal(theirs.generate(**inputs, max_new_tokens=6), wanted)


def peft_model(folder: Path) -> Any:
    base = PeftConfig.from_pretrained(folder).base_model_name_or_path
    model = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, folder).eval()


def test_peft_itself_gives_the_same_logits_and_generations(cli: Cli, run: Path, checkpoint: Path) -> None:
    done = cli("export", f"run={run}", "--to", "peft", "--json")
    assert done.status == 0, done.err
    folder = run / "export" / "peft"
    assert json.loads(done.out) == {
        "to": "peft",
        "prompt": "the run's best prompt",
        "folder": str(folder),
        "files": ["README.md", "adapter_config.json", "adapter_model.safetensors"],
    }
    theirs = peft_model(folder)
    assert theirs.active_peft_config.base_model_name_or_path == str(checkpoint)
    assert_same_answers(prompted(run), theirs, batch(checkpoint))


def test_the_adapters_files_are_as_pefts_own(cli: Cli, run: Path, tmp_path: Path) -> None:
    """What PEFT writes when it saves the adapter again: the same prompt, and no key that differs."""
    assert cli("export", f"run={run}", "--to=peft", f"--output={tmp_path / 'adapter'}").status == 0
    peft_model(tmp_path / "adapter").save_pretrained(tmp_path / "again")
    one, other = (json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("adapter", "again"))
    assert {key: other[key] for key in one} == one
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("adapter", "again"))
    assert list(one) == list(other) == ["prompt_embeddings"]
    assert torch.equal(one["prompt_embeddings"], other["prompt_embeddings"])
    assert one["prompt_embeddings"].dtype == torch.float32
    assert torch.equal(one["prompt_embeddings"], load_file(run / "prompt.safetensors")["prompt"])


@pytest.mark.parametrize("number", [1, 3])
def test_a_stages_model_and_prompt_answer_together(cli: Cli, run: Path, number: int) -> None:
    """Stage 1 has a decoder deeper than its encoder, and every stage stacks of unlike width."""
    for to in ("peft", "npy", "fpt"):
        refused = cli("export", f"run={run}", f"to={to}", f"stage={number}")
        assert refused.status == 2
        assert f"to=hf stage={number} writes" in refused.err
    done = cli("export", f"run={run}", "to=hf", f"stage={number}")
    assert (done.status, done.err) == (0, "")
    saved = run / "export" / f"hf-stage{number}"
    model, vectors = prompted(run, number), load_file(saved / "prompt.safetensors")["prompt"]
    assert torch.equal(vectors, model.prompt.tensors["prompt"])
    config = PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=5, num_transformer_submodules=1)
    theirs = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(saved, dtype=torch.float32), config).eval()
    theirs.prompt_encoder["default"].embedding.weight.data.copy_(vectors)
    assert_same_answers(model, theirs, batch(saved))


def test_the_array_is_the_prompt_as_googles_loader_wants_it(cli: Cli, run: Path) -> None:
    """A plain [P, D] array of float32, which their `from_array` compares with the shape it needs."""
    assert cli("export", f"run={run}", "to=npy").status == 0
    array = np.load(run / "export" / "npy" / "prompt.npy", allow_pickle=False)
    assert (array.dtype, array.shape, array.flags.c_contiguous) == (np.dtype("<f4"), (5, 32), True)
    assert torch.equal(torch.from_numpy(array), load_file(run / "prompt.safetensors")["prompt"])


def test_the_checkpoint_has_what_the_published_code_loads(cli: Cli, run: Path) -> None:
    """Its `load_checkpoint` reads these keys; fpt reads the prompt back."""
    assert cli("export", f"run={run}", "to=thunlp").status == 0
    file = run / "export" / "thunlp" / "checkpoint.pt"
    loaded = torch.load(file, map_location="cpu")
    assert loaded["args"]["tune_method"] == "prompt"
    assert loaded["current_state"] == {"epoch": 0, "num_updates": open_run(run).result["updates"]}
    assert torch.equal(loaded["prompt"], load_file(run / "prompt.safetensors")["prompt"])
    assert file.stat().st_size < 5000
    assert torch.equal(open_prompt(file).tensors()["prompt"], loaded["prompt"])


@pytest.mark.parametrize(("to", "number"), [("peft", None), ("npy", None), ("thunlp", None), ("hf", None), ("hf", 1)])
def test_the_cards_python_answers_as_the_prompt_does(
    cli: Cli,
    run: Path,
    to: str,
    number: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli("export", f"run={run}", f"to={to}", *([f"stage={number}"] if number else [])).status == 0
    monkeypatch.chdir(run / "export" / (f"{to}-stage{number}" if number else to))
    (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    exec(code, {})
    (text,) = re.findall(r"text = '(.*)'", code)
    tokenizer = open_backbone(open_run(run).config.model).tokenizer
    source = Encoded(RaggedRows.of(tokenizer([text]).input_ids), RaggedRows.of([[1]])).batch([0])
    longest = open_run(run).result["max_new_tokens"]
    answer = prompted(run, number).generate(source, max_new_tokens=longest)[0]
    assert capsys.readouterr().out == tokenizer.decode(answer, skip_special_tokens=True) + "\n"


def card(run: Path, *words: str) -> tuple[dict[str, Any], str]:
    """A card's metadata as the Hub reads it, and its text."""
    assert main(["export", f"run={run}", *words, f"output={run / 'out'}"]) == 0
    found = ModelCard.load(run / "out" / "README.md")
    shutil.rmtree(run / "out")
    assert not re.search(r"\| +\|", found.text.replace("|  |  |", "", 1))  # a template leaves blank what is not there
    return found.data.to_dict(), found.text


def test_the_card_says_what_it_is_and_what_it_scored(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    data, text = card(run, "to=peft")
    assert data == {"library_name": "peft", "tags": ["prompt-tuning", "soft-prompt", "fpt"], "metrics": ["accuracy"]}
    for shown in (
        f"| score | accuracy {result['metric']['value']:.2f}, validation split |",
        "| baseline | accuracy 50.00, most common label |",
        "boolq, 48 training and 24 validation examples",
        "| data | local files |",
        f"{result['flops_ratio']:.1%} of vanilla prompt tuning's",
        f"| updates | 20, best after {result['best_update']} |",
        f"torch {result['versions']['torch']}",
        "| 2 | 3 + 6 | 24 / 48 | 4 | ",
    ):
        assert shown in text
    data, text = card(run, "to=hf", "stage=2")
    assert data["library_name"] == "transformers"
    assert "a part of small, 3 encoder blocks of 24 FFN neurons, 6 decoder blocks of 48" in text
    assert f"accuracy {result['stages'][1]['score']:.2f}, validation split, on this model" in text
    assert "best after" not in text
    assert "licen" not in text.lower() + str(data).lower()


def test_the_hubs_model_and_data_are_named(run: Path) -> None:
    rewritten(run, data="hub", weights="google/t5-small-lm-adapt", config="{" + ", ".join(CONFIG) + "}")
    data, _ = card(run, "to=peft")
    assert (data["base_model"], data["datasets"]) == ("google/t5-small-lm-adapt", ["aps/super_glue"])


CONFIG = (
    "model_type: t5", "d_model: 32", "d_ff: 48", "d_kv: 8", "num_layers: 6", "num_heads: 4", "vocab_size: 1394",
    "feed_forward_proj: gated-gelu", "tie_word_embeddings: false",
)  # fmt: skip


def test_an_export_neither_disturbs_the_run_nor_overwrites(cli: Cli, run: Path, quick: list[str]) -> None:
    assert cli("export", f"run={run}", "to=npy").status == 0
    again = cli("export", f"run={run}", "to=npy")
    assert (again.status, len(again.err.splitlines())) == (2, 1)
    assert "export/npy: exists already; remove it, or give another output=DIR" in again.err
    words = [word for word in quick if not word.startswith("run.dir=")]
    done = cli("train", *words, f"run.dir={run}")
    assert done.status == 0
    assert "finished" in done.err
    (run / "prompt.safetensors").unlink()
    refused = cli("export", f"run={run}", "to=npy", f"output={run.parent / 'other'}")
    assert "prompt.safetensors: is missing" in refused.err
    assert not (run.parent / "other").exists()
    assert (run / "export" / "npy").is_dir()
    assert not list(run.parent.rglob("*.part"))


def test_a_failed_export_leaves_nothing(cli: Cli, run: Path, checkpoint: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "another", "T5 1.1", sizes={"d_kv": 4})
    rewritten(run, weights=str(tmp_path / "another"))
    done = cli("export", f"run={run}", "to=hf")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "was trained on another model" in done.err
    assert list((run / "export").iterdir()) == []
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "x", Path("/proc/none/x"), Path("/sys/x/y"), Path("/sys/x")):  # nor may root
        assert "cannot be written" in cli("export", f"run={run}", "to=npy", f"output={place}").err


@pytest.mark.trains
def test_the_embedded_models_adapter_names_its_folder(cli: Cli, tmp_path: Path) -> None:
    few = ["train.updates=2", "train.eval_every=2", "task.train_examples=32", "task.valid_examples=8", "schedule=pt"]
    few += ["train.score_untrained=false", f"run.dir={tmp_path / 'run'}"]
    assert cli("train", *few).status == 0
    assert cli("export", f"run={tmp_path / 'run'}", "to=peft").status == 0
    folder = tmp_path / "run" / "export" / "peft"
    assert_same_answers(prompted(tmp_path / "run"), peft_model(folder), batch(tiny.FOLDER))
    assert "base = tiny.FOLDER" in (folder / "README.md").read_text()
    assert cli("export", f"run={tmp_path / 'run'}", "to=hf").status == 0
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run" / "export" / "hf")
    assert model.dtype == torch.float32  # the embedded weights are in bfloat16, which float32 holds exactly


@pytest.mark.trains
def test_a_run_on_ones_own_files_shows_none_of_them(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    rows = [json.dumps({"q": f"secret {number}", "a": "yes"}) + "\n" for number in range(20)]
    (tmp_path / "own.jsonl").write_text("".join(rows))
    words = quick_words(checkpoint, tmp_path, tmp_path / "run")
    words = [word for word in words if not word.startswith("task.data=")]
    own = ["task=files", "task.name=own", f"task.train={tmp_path / 'own.jsonl'}", "task.source=question: {q}"]
    assert cli("train", *words, *own, "task.target={a}", "schedule=pt", "train.updates=2").status == 0
    assert cli("export", f"run={tmp_path / 'run'}", "to=npy").status == 0
    text = (tmp_path / "run" / "export" / "npy" / "README.md").read_text()
    assert "text = 'question: {q}'" in text
    assert "secret" not in text
    assert "own.jsonl" not in text
