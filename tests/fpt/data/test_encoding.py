"""Texts become token ids, cut where it is least needed; a run is told of what its tokenizer cannot say, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fpt.backbones import tiny
from fpt.backbones.backbone import Backbone
from fpt.backbones.family_table import FAMILY_TABLE
from fpt.config.compose import load
from fpt.data.encoding import check_labels, encode, lost_targets
from fpt.data.tokens import Tokens, decoded
from fpt.errors import UserError
from fpt.runs.progress import Progress
from fpt.tasks.benchmarks import TABLE, wordings_of
from fpt.tasks.opening import open_task
from fpt.tasks.predict_input import raw_example
from fpt.tasks.task import Example, Task, Template
from stages import inputs
from tests.conftest import open_folder
from tests.families import save_byte_level


@pytest.fixture(scope="module")
def no_pad(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return open_folder(save_byte_level(tmp_path_factory.mktemp("gpt2") / "gpt2", "gpt2"))


def test_long_texts_are_cut_at_the_end_and_keep_their_closing_token(checkpoint) -> None:
    tokenizer = open_folder(checkpoint).tokenizer
    examples = [
        Example("a", "question: is it red passage: " + "the lamp is red . " * 50, "<extra_id_0> yes", ("yes",)),
        Example("b", "question: is it red", "<extra_id_0> " + "no " * 20, ("no",)),
    ]
    whole = encode(examples, Tokens(tokenizer), source_length=10_000, target_length=10_000)
    cut = encode(examples, Tokens(tokenizer), source_length=16, target_length=5)
    assert whole.num_cut == (0, 0)
    assert cut.num_cut == (1, 1)
    assert cut.whole.tolist() == [list(pair) for pair in whole.lengths]
    assert cut.sources[0] == [*whole.sources[0][:15], 1]
    assert cut.targets[1] == [*whole.targets[1][:4], 1]
    assert cut.sources[1] == whole.sources[1]
    assert cut.targets[0] == whole.targets[0] == tokenizer("<extra_id_0> yes").input_ids


def test_what_is_cut_is_the_end_of_the_spare_part(checkpoint) -> None:
    """Whatever comes after it, and to the token: all others are those of the whole source."""
    tokenizer = open_folder(checkpoint).tokenizer
    passage = "the lamp is red . " * 30 + "the stone is old ."
    for plain in ("passage: {} question: is it old?", "passage: {}", "passage: ({})?", "{} is it"):
        start = plain.index("{}")
        example = Example("a", plain.format(passage), "yes", ("yes",), (start, start + len(passage)))
        whole, cut = (
            encode([example], Tokens(tokenizer), source_length=limit, target_length=9).sources[0] for limit in (999, 40)
        )
        after = tokenizer(plain[start + 2 :]).input_ids
        assert len(cut) == 40
        assert cut == [*whole[: 40 - len(after)], *after]
        assert tokenizer.decode(cut).replace(" ", "").endswith(plain[start + 2 :].replace(" ", "") + "</s>")


def test_where_the_rest_alone_is_too_long_its_end_is_cut(checkpoint) -> None:
    tokenizer = open_folder(checkpoint).tokenizer
    before, passage, after = "question: " + "is it red " * 9, "the lamp " * 9, " is it old"
    example = Example("a", before + passage + after, "yes", ("yes",), (len(before), len(before + passage)))
    (cut,) = encode([example], Tokens(tokenizer), source_length=12, target_length=9).sources
    assert cut == [*tokenizer(before + after).input_ids[:11], 1]


def test_parts_do_not_matter(checkpoint, monkeypatch) -> None:
    tokenizer = open_folder(checkpoint).tokenizer
    examples = [Example(str(n), f"is it {n} " * (n % 7 + 1), f"<extra_id_0> {n % 3}", ("x",)) for n in range(23)]
    whole = encode(examples, Tokens(tokenizer), source_length=20, target_length=9)
    seen: list[list[int]] = []
    monkeypatch.setattr("fpt.data.encoding.PART", 5)
    again = encode(
        examples,
        Tokens(tokenizer),
        source_length=20,
        target_length=9,
        with_bar=lambda parts, _: seen.extend(parts) or parts,
    )
    assert [index for part in seen for index in part] == list(range(23))
    assert (list(again.sources), list(again.targets)) == (list(whole.sources), list(whole.targets))
    assert again.num_cut[0] == whole.num_cut[0] > 0
    assert list(whole.targets) == [tokenizer(example.target).input_ids for example in examples]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """GPT-2's kind, with RoBERTa's mask, which takes the space before it along."""
    tokenizer = open_folder(save_byte_level(tmp_path_factory.mktemp("bytes") / "gpt2", "gpt2")).tokenizer
    tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True)})
    return tokenizer


@pytest.mark.parametrize(
    ("family", "text", "seen"),
    [
        ("roberta", "{a} . It was {mask} .", "the lamp {mask} . It was <mask> ."),
        ("roberta", "{mask} : {a}", "<mask> : the lamp {mask}"),
        ("roberta", "{a}", "the lamp {mask} <mask>"),
        ("gpt2", "{a} . It was {mask}", "the lamp {mask} . It was"),
        ("llama", "{a}", "the lamp {mask}\nanswer:"),
        ("llama", "{a}{mask}", "the lamp {mask}"),
        ("t5gemma", "{a}", "the lamp {mask}"),
        ("t5", "{a} . It was {mask} .", "the lamp {mask} . It was <extra_id_0> ."),
    ],
)
def test_every_way_to_read_has_its_own_mark_where_the_template_says_and_nowhere_else(
    family: str, text: str, seen: str, byte_level: PreTrainedTokenizerBase, checkpoint: Path
) -> None:
    tokenizer = open_folder(checkpoint).tokenizer if family == "t5" else byte_level
    example = Template(text, ("a",)).fill({"a": "the lamp {mask}"})._replace(target="<extra_id_0> old")
    (source,), (target,) = (
        list(rows)
        for data in [encode([example], Tokens(tokenizer, FAMILY_TABLE[family]), source_length=99, target_length=9)]
        for rows in (data.sources, data.targets)
    )
    assert source == tokenizer(seen).input_ids
    if family == "gpt2":
        assert [*source, *target[:-1]] == tokenizer(f"{seen} old").input_ids
    long = Template(text, ("a",)).fill({"a": "the lamp " * 90})
    (cut,) = encode([long], Tokens(tokenizer, FAMILY_TABLE[family]), source_length=60, target_length=9).sources
    assert len(cut) == 60
    assert cut[-1] == source[-1] or not seen.endswith("answer:")
    assert cut.count(byte_level.mask_token_id) == (family == "roberta")


KINDS: dict[str, tuple[str, dict[str, Any]]] = {  # of tokenizers: a family that has one, and what makes it so
    "Llama 2's": (
        "llama",
        {"normalizer": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])},
    ),
    "Gemma's": ("gemma3_text", {"normalizer": normalizers.Replace(" ", "▁")}),
    "SentencePiece's": ("llama", {"pre_tokenizer": pre_tokenizers.Metaspace()}),
    "GPT-2's": ("gpt2", {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False)}),
    "BERT's": ("bert", {"pre_tokenizer": pre_tokenizers.BertPreTokenizer()}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_goes_on_as_the_text_would(kind: str) -> None:
    family, parts = KINDS[kind]
    library = Tokenizer(models.BPE(unk_token="<unk>"))
    for name, part in parts.items():
        setattr(library, name, part)
    trainer = trainers.BpeTrainer(special_tokens=["<unk>", "</s>", "<mask>"], show_progress=False)
    words = ["a", " it", " was", " great", " not", " terrible", "it", "was", "great", "not", "terrible"]
    library.train_from_iterator(words * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=library, unk_token="<unk>", eos_token="</s>", mask_token="<mask>"
    )
    tokens = Tokens(tokenizer, FAMILY_TABLE[family])
    end = [tokenizer.eos_token_id] * tokens.ends
    for word in ("great", "not great", "terrible"):
        (target,), (source,) = tokens.of_targets([f"<extra_id_0> {word}"]), tokens.of_sources(["it was"])
        assert [*source, *target] == tokenizer(f"it was {word}").input_ids + end
    assert tokens.of_targets([""]) == [end]


def test_a_source_without_a_token_is_the_end_token(no_pad: Backbone) -> None:
    """Nothing can be read from no position, nor a late prompt be made of one."""
    examples = [raw_example("{mask}"), raw_example(" {mask}"), raw_example("lamp")]
    data = encode(examples, Tokens(no_pad.tokenizer, no_pad.family.row), source_length=9, target_length=9)
    assert [*data.sources][:2] == [[no_pad.tokenizer.eos_token_id]] * 2


def test_a_cue_outlasts_a_text_that_is_too_long(no_pad: Backbone) -> None:
    tokens = Tokens(no_pad.tokenizer, no_pad.family.row)
    (source,) = encode([raw_example("lamp " * 90)], tokens, source_length=20, target_length=9).sources
    (cue,) = tokens.of_parts(["\nanswer:"])
    assert (len(source), source[-len(cue) :]) == (20, cue)


def test_published_texts_have_one_mask_each() -> None:
    assert {len(template.masks) for task in TABLE for template, _ in wordings_of(task).values()} == {1}


@pytest.mark.parametrize(
    ("family", "source", "templates", "read"),
    [
        ("t5", "the </s> lamp <extra_id_3>", "", "the < /s> lamp < extra_id_3>"),
        ("t5", "is <extra_id_0> {mask} red", "", "is < extra_id_0><extra_id_0> red"),
        ("t5", "the </s> lamp", "a </s> {q}", "the</s> lamp"),
        ("gpt2", "a <|endoftext|> b</s>", "", "a <|endoftext|> b</s>"),
        ("gpt2", "<|eot|>a <|endoftext|> b", "{q}<|eot|>", "<|eot|>a < |endoftext|> b"),
    ],
)
def test_special_tokens_of_a_record_are_text_and_those_of_a_template_special(
    checkpoint: Path, no_pad: Backbone, family: str, source: str, templates: str, read: str
) -> None:
    backbone = open_folder(checkpoint) if family == "t5" else no_pad
    tokenizer, row = backbone.tokenizer, backbone.family.row
    data = encode([raw_example(source)], Tokens(tokenizer, row, templates), source_length=99, target_length=99)
    ids = data.sources[0][: -1 if family == "t5" else None]
    assert tokenizer.decode(ids) == read + row.reads.cue
    names = [tokenizer.convert_ids_to_tokens(token) for token in ids if token in set(tokenizer.all_special_ids) - {2}]
    assert names == ["<extra_id_0>"] * ("{mask}" in source) + ["</s>", "<|eot|>"][family == "gpt2" :][: bool(templates)]


def test_the_spare_part_is_cut_where_it_is_also_behind_special_tokens(checkpoint: Path) -> None:
    tokenizer = open_folder(checkpoint).tokenizer
    before, passage, after = "</s><pad> is it ", "the </s> lamp " * 30, " red?"
    example = Example("a", before + passage + after, "yes", ("yes",), (len(before), len(before + passage)))
    (cut,) = encode([example], Tokens(tokenizer), source_length=40, target_length=9).sources
    assert len(cut) == 40
    said = tokenizer.decode(cut)
    assert said.startswith("< /s>< pad> is it the < /s> lamp")
    assert said.endswith("red?</s>")


def test_a_target_with_special_tokens_reads_back(no_pad: Backbone) -> None:
    tokens = Tokens(no_pad.tokenizer, no_pad.family.row)
    words = ["<|endoftext|> b", "a<|eot|>", "<extra_id_0> c"]
    assert decoded(tokens.of_targets(words), no_pad.tokenizer) == [*words[:2], "c"]
    assert decoded(tokens.of_targets(["x <extra_id_0>"]), no_pad.tokenizer) == ["x <extra_id_0>"]


def test_a_sentinel_that_is_an_ordinary_word_is_no_part_of_an_answer() -> None:
    """As mT5's are, whose tokenizer has no special tokens of that name."""
    library = Tokenizer(models.WordLevel({"<extra_id_0>": 0, "yes": 1, "?": 2}, unk_token="?"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert decoded([[0, 1], [1]], PreTrainedTokenizerFast(tokenizer_object=library)) == ["yes", "yes"]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
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
    gpt2: Backbone, embedded: Backbone, tmp_path: Path, words: tuple[str, str], said: str, chosen: bool
) -> None:
    """Unless, where that can be, one of them is chosen and none read from an output."""
    first, second = words
    task = task_of(tmp_path, "0", "1", labels=f"{{0: '{first}', 1: '{second}'}}")
    check_labels(task, tokens_of(gpt2), chosen=False)
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
    gpt2: Backbone, embedded: Backbone, tmp_path: Path, metric: str
) -> None:
    words = [*words_of(tmp_path, *["the lamp", "是 lamp", "a 否"] * 200), f"task.metric={metric}"]
    task = open_task(load(words))
    (note,) = lost_targets(task, tokens_of(embedded))
    assert note.startswith("200 of 300 training targets do not read back from the model's tokenizer")
    assert note.endswith(("'是 lamp' becomes 'lamp'", "'a 否' becomes 'a'"))
    assert lost_targets(task, tokens_of(gpt2)) == []
