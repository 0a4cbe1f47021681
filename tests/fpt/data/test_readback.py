"""A run is refused whose labels its tokenizer cannot say, and told of free targets that it cannot."""

import json
from pathlib import Path

import pytest

from fpt.backbones import tiny
from fpt.backbones.backbone import Backbone
from fpt.config.compose import load
from fpt.data import encoding
from fpt.data.encoding import Tokens
from fpt.data.readback import check_labels, tokenizer_notes
from fpt.errors import UserError
from fpt.runs.progress import Progress
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task
from stages import inputs
from tests.conftest import open_folder
from tests.families import save_byte_level


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Whose tokenizer can say any text."""
    return open_folder(save_byte_level(tmp_path_factory.mktemp("gpt2") / "gpt2", "gpt2"))


@pytest.fixture(scope="module")
def embedded() -> Backbone:
    return open_folder(tiny.FOLDER)


def words_of(folder: Path, *answers: str) -> list[str]:
    rows = [{"q": f"is it {number}", "a": answer} for number, answer in enumerate(answers)]
    (folder / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    files = [f"task.train={folder}/a.jsonl", f"task.valid={folder}/a.jsonl"]
    return ["task=files", *files, "task.source={q}", "task.target={a}"]


def task_of(folder: Path, *answers: str, labels: str | None = None) -> Task:
    return open_task(load([*words_of(folder, *answers), *([f"task.labels={labels}"] if labels else [])]))


def tokens_of(backbone: Backbone) -> Tokens:
    return Tokens(backbone.tokenizer, backbone.family.row)


@pytest.mark.parametrize(
    ("words", "said", "chosen"),
    [
        (("是", "否"), r"the words '是' and '否' are the same tokens .*▁ <unk> </s>\); give another word", True),
        (("nein", "是"), "'是' reads back as '' from the model's tokenizer, so that no output could be it", False),
        (("two  spaces", "one"), "'two  spaces' reads back as 'two spaces'", False),
        (("m²", "km"), "'m²' reads back as 'm2'", False),
    ],
)
def test_labels_that_the_tokenizer_cannot_say_are_refused(
    byte_level: Backbone, embedded: Backbone, tmp_path: Path, words: tuple[str, str], said: str, chosen: bool
) -> None:
    """Unless, where that can be, one of them is chosen and none read from an output."""
    first, second = words
    task = task_of(tmp_path, "0", "1", labels=f"{{0: '{first}', 1: '{second}'}}")
    check_labels(task, tokens_of(byte_level), chosen=False)
    with pytest.raises(UserError, match=said):
        check_labels(task, tokens_of(embedded), chosen=False)
    if chosen:
        with pytest.raises(UserError, match=said):
            check_labels(task, tokens_of(embedded), chosen=True)
    else:
        assert len(check_labels(task, tokens_of(embedded), chosen=True)) == 2


def test_a_run_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    words = [*words_of(tmp_path, "0", "1"), "task.labels={0: 是, 1: yes}"]
    with pytest.raises(UserError, match="which chooses one"):
        inputs.open_inputs(load(words), open_task(load(words)), Progress())


@pytest.mark.parametrize("metric", ["exact_match", "rougeL"])
def test_free_targets_that_do_not_read_back_are_counted(
    byte_level: Backbone, embedded: Backbone, tmp_path: Path, metric: str
) -> None:
    words = [*words_of(tmp_path, *["the lamp", "是 lamp", "a 否"] * 200), f"task.metric={metric}"]
    task = open_task(load(words))
    (note,) = tokenizer_notes(task, tokens_of(embedded))
    assert note.startswith("200 of 300 training targets do not read back from the model's tokenizer")
    assert note.endswith(("'是 lamp' becomes 'lamp'", "'a 否' becomes 'a'"))
    assert tokenizer_notes(task, tokens_of(byte_level)) == ()


def test_special_tokens_in_records_are_told(byte_level: Backbone, embedded: Backbone, tmp_path: Path) -> None:
    labels = "task.labels={0: yes, 1: no}"
    rows = [{"q": text, "a": str(number % 2)} for number, text in enumerate(["<s>", "a </s> <|eot|>", "x", "y"])]
    words = words_of(tmp_path, "0", "1")
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    task = open_task(load([*words, labels]))
    assert tokenizer_notes(task, tokens_of(embedded)) == (
        "1 of 4 training examples hold special tokens of the model's tokenizer, as '</s>'; they are read as text, as"
        " '< /s>'",
    )
    (note,) = tokenizer_notes(task, tokens_of(byte_level))
    assert note.endswith("as '<|eot|>'; they are read as text, as '<|eot|>'")
    words[4] = "task.source={q}<|eot|>"
    config = load([*words, labels])
    task = open_task(config)
    tokens = encoding.tokens_of(task, byte_level, config.task)
    assert tokenizer_notes(task, tokens) == (
        "1 of 4 sources hold '<|eot|>', as the template does: it is special in all",
    )
