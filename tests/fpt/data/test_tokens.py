"""With task.chat=true a model reads what transformers' own apply_chat_template writes, in training as in prediction.

And with task.add_bos_token=true a BOS token first.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from fpt import api
from fpt.backbones.backbone import Backbone
from fpt.config import compose
from fpt.data.encoding import encode
from fpt.data.tokens import Tokens, chat_of, tokens_of
from fpt.errors import UserError
from fpt.tasks.catalogue import rules_of
from fpt.tasks.predict_input import raw_example
from fpt.tasks.task import SENTINEL, Example
from tests.conftest import Outcome, open_folder, quick_words
from tests.families import save_byte_level

TEMPLATES = {
    "ChatML, with a system message": (
        "{{ '<|endoftext|>system\nbe kind<|eot|>\n' }}{% for message in messages %}{{ '<|endoftext|>' + message['role']"
        " + '\n' + message['content'] + '<|eot|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|endoftext|>assistant\n' }}{% endif %}"
    ),
    "Mistral's, whose answers stand behind a space": (
        "<|endoftext|>{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content']"
        " + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + '<|eot|>' }}{% endif %}{% endfor %}"
    ),
    "Gemma's, which trims": (
        "{% for message in messages %}{{ '<|endoftext|>' + message['role'] + '\n' + (message['content'] | trim)"
        " + '<|eot|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|endoftext|>assistant\n' }}{% endif %}"
    ),
}
CHATML = "ChatML, with a system message"


def with_template(folder: Path, template: str | None, family: str = "llama") -> Path:
    save_byte_level(folder, family, end="<|eot|>")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def theirs(backbone: Backbone, source: str, answer: str) -> list[int]:
    messages = [{"role": "user", "content": source}, {"role": "assistant", "content": answer}]
    ids: Any = backbone.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    return list(ids)


@pytest.fixture(scope="module", params=TEMPLATES)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return open_folder(with_template(tmp_path_factory.mktemp("chat") / "model", TEMPLATES[request.param]))


def tokens(backbone: Backbone) -> Tokens:
    return Tokens(backbone.tokenizer, backbone.family.row, chat=chat_of(backbone))


@pytest.mark.parametrize("source", ["the lamp is red", "Привет мир", "a stone\n\nis old?", "yes", ""])
@pytest.mark.parametrize("answer", ["yes", "the stone is old"])
def test_token_ids_are_transformers_own(backbone: Backbone, source: str, answer: str) -> None:
    """Up to the answer's end; what a template has behind it is not for the model to say."""
    example = Example("", f" {source}\n", SENTINEL + answer, ())
    data = encode([example], tokens(backbone), source_length=99, target_length=20)
    ours, whole = [*data.sources[0], *data.targets[0]], theirs(backbone, source, answer)
    assert whole[: len(ours)] == ours
    assert backbone.tokenizer.decode(whole[len(ours) :]).strip() == ""
    assert backbone.tokenizer.convert_ids_to_tokens(ours[-1]) == "<|eot|>"


def test_a_special_token_in_a_text_is_plain_text(backbone: Backbone) -> None:
    special = {backbone.tokenizer.convert_tokens_to_ids(name) for name in ("<|eot|>", "<|endoftext|>")}
    examples = [Example("", f"a{said} lamp", f"yes{said}", ()) for said in ("", "<|eot|>", "<|endoftext|>")]
    data = encode(examples, tokens(backbone), source_length=99, target_length=20)
    counts = [
        [sum(token in special for token in rows[index]) for rows in (data.sources, data.targets)] for index in range(3)
    ]
    assert counts[0] == counts[1] == counts[2]
    assert len({tuple(row) for row in data.sources}) == 3


def test_a_cut_leaves_the_template_whole(backbone: Backbone) -> None:
    example = Example("", "the lamp is red " * 50, "yes", ())
    (cut,) = encode([example], tokens(backbone), source_length=60, target_length=9).sources
    (short,) = encode([Example("", "", "yes", ())], tokens(backbone), source_length=60, target_length=9).sources
    said = backbone.tokenizer.decode(cut)
    before, behind = backbone.tokenizer.decode(short).split(chat_of(backbone).between)[0], chat_of(backbone).between
    assert len(cut) == 60
    assert said.startswith(f"{before}the lamp is red the lamp")
    assert said.endswith(behind)
    with pytest.raises(UserError, match=rf"^task\.source_length={len(short)}: the chat template alone is "):
        encode([example], tokens(backbone), source_length=len(short), target_length=9)


@pytest.mark.trains
@pytest.mark.parametrize("place", ["prefix", "suffix"])
def test_a_runs_prompt_answers_in_the_template(
    cli: Callable[..., Outcome], boolq: Path, tmp_path: Path, place: str
) -> None:
    folder, run = with_template(tmp_path / "model", TEMPLATES[CHATML]), tmp_path / "run"
    few = ["train.updates=2", "train.eval_every=2", "task.valid_examples=4", "task.chat=true", f"prompt.place={place}"]
    assert cli("train", *quick_words(folder, boolq, run), *few).status == 0
    text = "is the lamp red"
    with api.predictor(run) as predictor:
        (found,) = predictor._encoded([raw_example(text)]).sources
        assert predictor([text])[0].input == text
    whole = theirs(open_folder(folder), text, "yes")
    assert whole[: len(found)] == list(found)
    done = cli("show", *quick_words(folder, boolq, run), "task.chat=true", "n=1", "--json")
    (look,) = json.loads(done.out)["examples"]
    names = look["source_tokens"] + look["target_tokens"]
    whole = theirs(open_folder(folder), look["source"].strip(), look["golds"][0])
    assert names == open_folder(folder).tokenizer.convert_ids_to_tokens(whole)[: len(names)]


REFUSED = {
    "no template": (None, "has no chat template"),
    "an error of its own": ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    "no answer": ("{% for message in messages %}{{ message['content'] }}{% endfor %}", "does not go on"),
    "another end": (
        "{% for m in messages %}{{ m['role'] + m['content'] + 'END' }}{% endfor %}",
        "ends an answer with E",
    ),
    "an end that ends nothing": (
        "{% for m in messages %}{{ '<|eot|>' + m['role'] + '\n' + m['content'] + '<|endoftext|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|eot|>assistant\n' }}{% endif %}",
        "ends an answer with <|endoftext|>",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_templates_that_do_not_serve_are_refused(tmp_path: Path, case: str) -> None:
    template, why = REFUSED[case]
    with pytest.raises(UserError, match=r"^task\.chat=true: ") as refused:
        chat_of(open_folder(with_template(tmp_path / "model", template)))
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("already", [False, True])
def test_a_bos_token_stands_once_before_every_source(tmp_path: Path, already: bool) -> None:
    """Whether the tokenizer puts one there itself, as Llama's does, or not, as GPT-2's; a long source keeps it too."""
    folder = save_byte_level(tmp_path / "model", "llama", end="<|eot|>")
    tokenizer = AutoTokenizer.from_pretrained(folder, bos_token="<|endoftext|>")
    bare = tokenizer("a stone").input_ids
    if already:
        pair = ("<|endoftext|>", tokenizer.bos_token_id)
        tokenizer._tokenizer.post_processor = TemplateProcessing("<|endoftext|> $A", special_tokens=[pair])
        assert tokenizer("a stone").input_ids == [tokenizer.bos_token_id, *bare]
    tokenizer.save_pretrained(folder)
    config = compose.load([f"model={folder}", "task=boolq", "task.add_bos_token=true"])
    rules = tokens_of(rules_of(config.task), open_folder(folder), config.task)
    examples = [Example("", source, "yes", (), spare=(0, len(source))) for source in ("a stone", "a stone " * 50)]
    short, cut = encode(examples, rules, source_length=20, target_length=4).sources
    assert short[: len(bare) + 1] == [tokenizer.bos_token_id, *bare]
    assert (len(cut), cut[:2]) == (20, [tokenizer.bos_token_id, bare[0]])


def test_a_bos_token_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = save_byte_level(tmp_path / "model", "qwen3")
    config = compose.load([f"model={folder}", "task=boolq", "task.add_bos_token=true"])
    with pytest.raises(
        UserError, match=r"^task\.add_bos_token=true: .*its tokenizer has no BOS token; begin task\.source"
    ):
        tokens_of(rules_of(config.task), open_folder(folder), config.task)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["task.chat=true"], "task.chat=true: chat templates are for causal models, and model=tiny is none"),
        (["task.add_bos_token=true"], "task.add_bos_token=true: is for causal models, and model=tiny is none"),
        (["task.add_bos_token=true", "task.chat=true", "model=gpt2-large"], "=true: a chat template begins as it must"),
    ],
)
def test_they_are_for_causal_models(cli: Callable[..., Outcome], words: list[str], why: str) -> None:
    done = cli("plan", "model=tiny", *words)
    assert (done.status, len(done.err.strip().splitlines())) == (2, 1)
    assert why in done.err
