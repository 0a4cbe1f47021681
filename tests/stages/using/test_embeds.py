"""Prompt and text as embeddings: transformers answers them, put in as `inputs_embeds`, as fpt answers the text."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from fpt.__main__ import main
from tests.conftest import Outcome, boolq_lines, quick_words
from tests.families import save_family

Cli = Callable[..., Outcome]
FAMILIES = {"llama": "prefix", "gemma3_text": "suffix"}  # with the prompt's place; Gemma's embeddings are scaled
COUNT = 6


def trained(family: str, boolq: Path, folder: Path, place: str = "prefix") -> Path:
    """The run folder of two updates, with a prompt that says something."""
    model = save_family(folder / family, family)
    few = ["train.updates=2", "train.eval_every=2", "schedule=pt", "optim.lr=0.3", "task.valid_examples=6"]
    assert main(["train", *quick_words(model, boolq, folder / "run"), *few, f"prompt.place={place}"]) == 0
    return folder / "run"


@pytest.fixture(scope="module", params=FAMILIES)
def run(request: pytest.FixtureRequest, trains: None, boolq: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(request.param, boolq, tmp_path_factory.mktemp(request.param), FAMILIES[request.param])


def test_transformers_answers_as_the_run_does(cli: Cli, run: Path, tmp_path: Path) -> None:
    """As many tokens as there are, whatever they are: random models seldom end."""
    asked, folder = tmp_path / "asked.jsonl", tmp_path / "embeds"
    asked.write_text(boolq_lines(COUNT))
    done = cli("export", f"run={run}", "--to", "embeds", f"input={asked}", f"output={folder}")
    assert done.status == 0, done.err
    assert "embeds.safetensors" in done.out
    answers = cli("predict", f"run={run}", f"input={asked}", "--json", "max-new-tokens=4").out.splitlines()
    wanted = [json.loads(line) for line in answers]
    texts = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    assert [text["input"] for text in texts] == [answer["input"] for answer in wanted]
    model_folder = run.parent / run.parent.name.rstrip("0123456789")
    model = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    embeds = load_file(folder / "embeds.safetensors")
    assert sorted(embeds, key=int) == [text["id"] for text in texts]
    said = set()
    for text, answer in zip(texts, wanted, strict=True):
        found = model.generate(inputs_embeds=embeds[text["id"]][None], max_new_tokens=4, do_sample=False)
        tokens = tokenizer.convert_ids_to_tokens(found[0])
        assert tokens == [token["token"] for token in answer["tokens"]]
        said.add(tuple(tokens))
    assert len(said) > 1  # not one answer to all
    plain = tokenizer(f"{texts[0]['input']}\nanswer:", return_tensors="pt", add_special_tokens=False).input_ids
    assert embeds["0"].shape == (5 + plain.shape[1], model.config.hidden_size)
    text = embeds["0"][5:] if "llama" in str(model_folder) else embeds["0"][:-5]
    torch.testing.assert_close(text, model.get_input_embeddings()(plain)[0])


def test_a_prompt_behind_the_source_is_where_it_was_learned_or_nowhere(cli: Cli, boolq: Path, run: Path) -> None:
    if "llama" in str(run):
        return
    for to in ("peft", "npy", "tokens"):
        done = cli("export", f"run={run}", f"to={to}")
        assert (done.status, f"to={to}: " in done.err, "prompt.place=suffix puts" in done.err) == (2, True, True)
    model, asked = f"model={run.parent / 'gemma3_text'}", ["task.answer=score", "--json", "text=a lamp is red"]
    own = cli("predict", f"run={run}", *asked).out
    words = [model, f"task.data={boolq}", "task=boolq", *asked]
    again = cli("predict", f"prompt.file={run / 'prompt.safetensors'}", *words).out
    assert own == again != ""
    elsewhere = cli("predict", f"prompt.file={run / 'prompt.safetensors'}", *words[1:], "model=tiny")
    assert elsewhere.status == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "to=embeds: give input=FILE or text=…, what is to be embedded behind the prompt"),
        (["text=a", "input=b.txt"], "text=… and input=… both say what to answer; give one of them"),
        (["input=no.jsonl"], "no.jsonl"),
    ],
)
def test_what_is_asked_must_be_said(cli: Cli, run: Path, words: list[str], said: str) -> None:
    done = cli("export", f"run={run}", "to=embeds", *words)
    assert done.status == 2
    assert said in done.err
    assert not (run / "export").exists()


def test_other_formats_take_no_texts(cli: Cli, run: Path) -> None:
    done = cli("export", f"run={run}", "to=peft", "text=a")
    assert done.status == 2
    assert "text=a: is for to=embeds" in done.err


def test_an_encoder_decoder_is_refused_with_the_reason(cli: Cli, finished: Path) -> None:
    done = cli("export", f"run={finished}", "to=embeds", "text=a")
    assert done.status == 2
    assert "to=embeds: servers take embeddings for decoder-only models alone" in done.err


@pytest.mark.trains
def test_positions_that_the_embedding_adds_are_in_the_way(cli: Cli, boolq: Path, tmp_path: Path) -> None:
    done = cli("export", f"run={trained('gpt2', boolq, tmp_path)}", "to=embeds", "text=a")
    assert done.status == 2
    assert "to=embeds: a server would add positions to the prompt's vectors" in done.err
