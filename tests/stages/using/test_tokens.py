"""A checkpoint with prompts as tokens answers in other programs as the prompts do here, and cannot say the tokens."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from fpt.backbones import tiny
from fpt.backbones.backbone import Backbone, open_backbone
from fpt.config.schema import ModelConfig
from fpt.data.encoded import Batch
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.readers import prompted_model
from fpt.sharing.export import with_prompts
from stages import partial
from stages.selection import everything
from tests.conftest import FAMILIES, VOCABULARY, Outcome, open_folder, rewritten, save_checkpoint

Cli = Callable[..., Outcome]
TEXTS = ["question: is it red passage: the lamp is red .", "question: is it old", "passage: a stone is old . " * 4]


def asked(runs: dict[str, Path]) -> list[tuple[str, str, int, str]]:
    """50 validation examples, a prompt's by turns: its name, the source, the run's limit, and what it says here."""
    rows = []
    for name, run in runs.items():
        limit = json.loads((run / "result.json").read_text())["max_new_tokens"]
        lines = map(json.loads, (run / "predictions.jsonl").read_text().splitlines())
        rows.append([(name, line["input"], limit, line["output"]) for line in lines])
    return [row for pair in zip(*rows, strict=True) for row in pair][:50]


def said(tokenizer: Any, ids: list[int], limit: int) -> str:
    """What is read from an output, of which the run would have generated no more than `limit` tokens."""
    text = tokenizer.decode(ids[:limit], skip_special_tokens=True)
    return re.sub(r"<extra_id_\d+>", "", text).strip()


@pytest.fixture(scope="module")
def exported(two_runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fpt.__main__ import main

    folder = tmp_path_factory.mktemp("tokens") / "checkpoint"
    runs = ",".join(map(str, two_runs.values()))
    assert main(["export", f"run={runs}", "--to", "tokens", f"output={folder}"]) == 0
    return folder


def test_transformers_answers_a_batch_of_mixed_prompts_as_each_run_did(
    two_runs: dict[str, Path], exported: Path
) -> None:
    rows = asked(two_runs)
    tokenizer, model = AutoTokenizer.from_pretrained(exported), AutoModelForSeq2SeqLM.from_pretrained(exported)
    inputs = tokenizer([f"<prompt:{name}> {text}" for name, text, _, _ in rows], return_tensors="pt", padding=True)
    ids = model.generate(**inputs, max_new_tokens=max(limit for _, _, limit, _ in rows))[:, 1:].tolist()
    found = [said(tokenizer, one, limit) for one, (_, _, limit, _) in zip(ids, rows, strict=True)]
    assert found == [output for *_, output in rows]
    assert len(set(found)) > 3  # or equal answers would say little
    other = tokenizer([f"<prompt:mnli> {text}" for _, text, _, _ in rows], return_tensors="pt", padding=True)
    assert model.generate(**other, max_new_tokens=4)[:, 1:].tolist() != ids


@pytest.mark.parametrize(("kind", "least"), [("float32", 50), ("int8", 40)])
def test_ctranslate2_answers_as_each_run_did(
    two_runs: dict[str, Path], exported: Path, tmp_path: Path, kind: str, least: int, record_property: Any
) -> None:
    """All of 50 in float32; what int8 leaves of them is reported (49 with prompts that were trained to their end)."""
    rows, tokenizer = asked(two_runs), AutoTokenizer.from_pretrained(exported)
    ctranslate2.converters.TransformersConverter(str(exported)).convert(str(tmp_path / "ct2"))
    translator = ctranslate2.Translator(str(tmp_path / "ct2"), compute_type=kind, intra_threads=1)
    sources = tokenizer([f"<prompt:{name}> {text}" for name, text, _, _ in rows]).input_ids
    tokens = [tokenizer.convert_ids_to_tokens(ids) for ids in sources]
    results = translator.translate_batch(tokens, beam_size=1, max_decoding_length=max(row[2] for row in rows))
    ids = [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
    found = [said(tokenizer, one, limit) for one, (_, _, limit, _) in zip(ids, rows, strict=True)]
    same = sum(one == output for one, (*_, output) in zip(found, rows, strict=True))
    record_property("same", same)
    assert same >= least


def test_a_name_stands_for_its_tokens_and_the_rest_of_a_text_for_its_own(exported: Path) -> None:
    tokenizer, plain = (AutoTokenizer.from_pretrained(folder) for folder in (exported, tiny.FOLDER))
    boolq = list(range(VOCABULARY, VOCABULARY + 20))
    mnli = list(range(VOCABULARY + 20, VOCABULARY + 27))
    for text in [*TEXTS, "", "  Two  spaces, ＦＵＬＬ width ﬁ and <extra_id_0>", "<prompt:other> x", "<prompt:boolq"]:
        own = plain(text).input_ids
        assert tokenizer(text).input_ids == own
        for gap in ("", " "):
            assert tokenizer(f"<prompt:boolq>{gap}{text}").input_ids == [*boolq, *own]
            assert tokenizer(f"<prompt:mnli>{gap}{text}").input_ids == [*mnli, *own]
    ids = tokenizer(f"<prompt:boolq> {TEXTS[0]}").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == plain.decode(ids[20:], skip_special_tokens=True)


def test_the_cards_python_runs(exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    text = (exported / "README.md").read_text()
    assert "| `<prompt:mnli>` | mnli, 32 training examples | 7 | accuracy " in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(exported)
    capsys.readouterr()
    exec(code, {})
    assert capsys.readouterr().out.startswith("['")


def with_tokens(backbone: Backbone, vectors: torch.Tensor, folder: Path) -> Any:
    """The whole model with one prompt as tokens, saved and opened again by transformers."""
    tokenizer, first = with_prompts(backbone.tokenizer, {"a": len(vectors)}), len(backbone.tokenizer)
    body = partial.build(backbone, everything(backbone.shape))
    backbone.family.add_tokens(body, vectors, first)
    partial.save(body, backbone, folder, tokenizer=tokenizer, suppressed=range(first, first + len(vectors)))
    return AutoModelForSeq2SeqLM.from_pretrained(folder)


@pytest.mark.dear
@pytest.mark.parametrize("spare", [3, 9])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_what_it_did(family: str, spare: int, tmp_path: Path) -> None:
    """Logits of the old tokens, their head tied or its own, with too few spare rows and with more than enough."""
    backbone = open_folder(save_checkpoint(tmp_path / "small", family, vocab_size=VOCABULARY + spare))
    vectors = torch.randn(6, 32, generator=torch.Generator().manual_seed(3)) * 10
    model = prompted_model(partial.build(backbone, everything(backbone.shape)), SoftPrompt(vectors))
    theirs = with_tokens(backbone, vectors, tmp_path / "tokens")
    assert theirs.config.vocab_size == VOCABULARY + max(6, spare)
    sources = backbone.tokenizer(TEXTS, return_tensors="pt", padding=True)
    labels = torch.tensor([[1100, 30, 1], [1100, 1, -100], [1100, 31, 1]])
    batch = Batch(sources.input_ids, sources.attention_mask, labels)
    prompt = torch.arange(VOCABULARY, VOCABULARY + 6).expand(3, -1)
    inputs = {
        "input_ids": torch.cat([prompt, batch.source], 1),
        "attention_mask": torch.cat([torch.ones_like(prompt), batch.mask], 1),
    }
    with torch.no_grad():
        embedded, mask = model.prompt.joined(model.body.get_input_embeddings()(batch.source), batch.mask, batch.mask)
        wanted = model.body(inputs_embeds=embedded, attention_mask=mask, labels=labels).logits[..., :VOCABULARY]
        found = theirs(**inputs, labels=labels).logits[..., :VOCABULARY]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["T5 1.0", "T5 1.1"])
def test_tokens_of_prompts_are_never_the_likeliest(family: str, tmp_path: Path) -> None:
    """Nor where a tied head with the vectors as its rows would say nothing else."""
    backbone = open_folder(save_checkpoint(tmp_path / "small", family))
    vectors = torch.randn(64, 32, generator=torch.Generator().manual_seed(5)) * 1000
    theirs = with_tokens(backbone, vectors, tmp_path / "tokens")
    states = torch.randn(500, 32, generator=torch.Generator().manual_seed(6)) * 5
    logits = theirs.lm_head(states)
    assert logits.argmax(-1).max() < VOCABULARY
    assert (logits[:, VOCABULARY:].amax(-1) < logits[:, :VOCABULARY].amax(-1)).all()
    naive = torch.cat([theirs.lm_head.weight[:VOCABULARY], vectors])
    assert ((states @ naive.T).argmax(-1) >= VOCABULARY).float().mean() > 0.9
    assert theirs.generation_config.suppress_tokens == list(range(VOCABULARY, VOCABULARY + 64))


def test_a_model_with_prompts_takes_another(tmp_path: Path, two_runs: dict[str, Path], exported: Path) -> None:
    """One whose name it has is refused; its own names keep their tokens."""
    backbone = open_backbone(ModelConfig(name="again", weights=str(exported)))
    again = with_prompts(backbone.tokenizer, {"more": 2})
    assert again("<prompt:more> x").input_ids[:2] == [VOCABULARY + 27, VOCABULARY + 28]
    assert again("<prompt:mnli> x").input_ids == AutoTokenizer.from_pretrained(exported)("<prompt:mnli> x").input_ids
    with pytest.raises(ValueError, match="has a prompt called mnli already; give another name"):
        with_prompts(backbone.tokenizer, {"mnli": 2})


def test_a_tokenizer_without_rules_is_refused() -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(ValueError, match="ByT5Tokenizer has no rules for names of prompts"):
        with_prompts(ByT5Tokenizer(), {"a": 2})


@pytest.mark.trains
def test_what_cannot_be_one_checkpoint_is_refused(
    cli: Cli, two_runs: dict[str, Path], finished: Path, tmp_path: Path
) -> None:
    one, other = two_runs.values()
    output, count = f"output={tmp_path / 'out'}", len(list(tmp_path.iterdir()))
    for words, said in [
        ([f"run={one},{other}", "to=peft"], "to=peft: takes the prompt of one run"),
        ([f"run={one}", "to=hf", "names=a"], "to=hf: takes the prompt of one run"),
        ([f"run={one},{one}", "to=tokens"], "expected values parted by commas, each once"),
        ([f"run={one},{other}", "to=tokens", "names=a"], "names=a: 1 names for 2 runs; give one for each"),
        ([f"run={one},{other}", "to=tokens", "names=a,b>"], "names=a,b>: b> is no name of letters"),
        ([f"run={one},{finished}", "to=tokens"], "two prompts would be called boolq; give names=A,B"),
        ([f"run={one},{finished}", "to=tokens", "names=a,b"], "holds vectors of 32, but"),
        ([f"run={one},{tmp_path / 'none'}", "to=tokens"], "none: no such folder"),
    ]:
        done = cli("export", *words, output)
        assert (done.status, len(done.err.splitlines())) == (2, 1), done.err
        assert said in done.err
    assert len(list(tmp_path.iterdir())) == count


def test_a_late_prompt_is_refused_with_the_reason(cli: Cli, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "late"))

    rewritten(run, kind="late")
    done = cli("export", f"run={run}", "to=tokens")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "to=tokens: a late prompt is made inside the model, from each example's states there" in done.err


def test_the_pages_python_runs(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "ctranslate2" in block)
    exec(code.replace("export/both-ct2", str(tmp_path / "ct2")).replace("export/both", str(exported)), {})
    assert capsys.readouterr().out.strip() in ("yes", "no")
