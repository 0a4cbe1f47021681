"""Metrics are those of implementations that nobody here wrote."""

import random
from statistics import fmean
from typing import Any

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef
from torchmetrics.functional.text import squad
from torchmetrics.functional.text.rouge import rouge_score

from fpt.tasks import metrics

UNCASED = BertNormalizer(lowercase=True, strip_accents=False)
WORDS = ["the", "a", "An", "red", "lamp", "Lamps", "lamp's", "stood,", "standing", "in", "Port", "port.", "1,000", "-"]


def sentence(stream: random.Random, longest: int) -> str:
    return " ".join(stream.choices(WORDS, k=stream.randint(0, longest)))


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_and_f1_are_scikit_learns_on_labels(seed: int) -> None:
    stream = random.Random(seed)
    golds, answers = (stream.choices(["yes", "no"], k=40) for _ in range(2))
    assert metrics.accuracy(answers, golds) == pytest.approx(100 * accuracy_score(golds, answers))
    assert metrics.f1(answers, golds, "yes") == pytest.approx(100 * f1_score(golds, answers, pos_label="yes"))


def test_garbage_is_wrong_whatever_the_gold() -> None:
    golds = ["yes", "no", "no", "yes", "no"]
    answers = ["yes", "no", "yes", "", "garbage"]
    assert metrics.accuracy(answers, golds) == pytest.approx(100 * accuracy_score(golds, answers))
    assert metrics.accuracy(["", "x"], ["yes", "no"]) == 0
    assert metrics.f1(["yes", "x"], ["yes", "no"], "yes") == metrics.f1(["yes", "yes"], ["yes", "no"], "yes")
    assert metrics.f1(["x"] * 5, golds, "yes") == 0
    assert metrics.f1(["no"], ["no"], "yes") == f1_score(["no"], ["no"], pos_label="yes", zero_division=0)


def test_exact_match_and_word_f1_are_squads() -> None:
    stream = random.Random(1)
    seen = set()
    for _ in range(300):
        answer, golds = sentence(stream, 3), [sentence(stream, 3) for _ in range(stream.randint(1, 3))]
        target: dict[str, Any] = {"answers": {"answer_start": [0] * len(golds), "text": golds}, "id": "1"}
        theirs = squad([{"prediction_text": answer, "id": "1"}], [target])
        ours = (metrics.exact_match(answer, golds), metrics.word_f1(answer, golds))
        assert ours == pytest.approx((theirs["exact_match"].item() / 100, theirs["f1"].item() / 100))
        seen.add((ours[0], 0 < ours[1] < 1))
    assert seen == {(False, False), (False, True), (True, False)}


def test_no_answer_is_right_only_where_there_is_none() -> None:
    assert (metrics.exact_match("", [""]), metrics.word_f1("", [""])) == (True, 1)
    assert (metrics.exact_match("lamp", [""]), metrics.word_f1("lamp", [""])) == (False, 0)
    assert (metrics.exact_match("", ["lamp"]), metrics.word_f1("", ["lamp"])) == (False, 0)


def test_rouge_is_torchmetrics() -> None:
    stream = random.Random(2)
    answers, golds = ([sentence(stream, 12) or "lamp" for _ in range(60)] for _ in range(2))
    theirs = rouge_score(answers, golds, use_stemmer=True, rouge_keys=("rouge1", "rouge2", "rougeL"))
    ours = metrics.rouge(answers, [[gold] for gold in golds])
    assert list(ours) == ["rougeL", "rouge1", "rouge2"]
    for name, value in ours.items():
        assert value == pytest.approx(100 * theirs[f"{name}_fmeasure"].item(), abs=1e-3)
        assert 0 < value < 100


def test_rouge_of_several_golds_is_rouge_scores_own() -> None:
    stream = random.Random(4)
    golds = [[sentence(stream, 12) or "lamp" for _ in range(3)] for _ in range(30)]
    answers = [sentence(stream, 12) for _ in golds]
    scorer = RougeScorer(metrics.ROUGES, use_stemmer=True)
    theirs = [scorer.score_multi(each, answer) for each, answer in zip(golds, answers, strict=True)]
    ours = metrics.rouge(answers, golds)
    for name, value in ours.items():
        assert value == pytest.approx(100 * fmean(score[name].fmeasure for score in theirs))
        assert value > max(metrics.rouge(answers, [[each[place]] for each in golds])[name] for place in range(3))


@pytest.mark.parametrize(
    "texts",
    [
        ("Привет, мир! Это снег.", "Снег — это мир; ПРИВЕТ"),
        ("Η γάτα κάθεται εδώ.", "Εδώ κάθεται η μεγάλη γάτα"),
        ("हिन्दी में लिखा है।", "यह हिन्दी है"),
        ("سماء زرقاء، وأرض", "أرض و سماء زرقاء"),
        ("我们九点开门，六点关门。", "九点开门"),
        ("café 5 naïve", "Café naïve 5"),
    ],
)
def test_rouge_of_any_script_is_that_of_as_many_words_in_ascii(texts: tuple[str, str]) -> None:
    """What is a word is multilingual BERT's matter: its tokenizer parts words, and Han's characters."""
    number = dict[str, str]()
    plain = []
    for text in texts:
        pieces = [piece for piece, _ in BertPreTokenizer().pre_tokenize_str(UNCASED.normalize_str(text))]
        words = [piece for piece in pieces if any(letter.isalnum() for letter in piece)]
        plain.append(" ".join(number.setdefault(word, f"x{len(number)}") for word in words))
    gold, answer = plain
    theirs = rouge_score(answer, gold, rouge_keys=("rouge1", "rouge2", "rougeL"))
    ours = metrics.rouge([texts[1]], [[texts[0]]])
    assert ours == pytest.approx({name: 100 * theirs[f"{name}_fmeasure"].item() for name in ours}, abs=1e-3)
    assert ours["rouge1"] > 0
    assert metrics.rouge([texts[0]], [[texts[0]]]) == pytest.approx(dict.fromkeys(ours, 100))


@pytest.mark.parametrize(("text", "words"), [("ภาษาไทย", 7), ("ひらがなカナ", 6), ("ＡＢＣ１２", 1), ("x是y", 3)])
def test_scripts_without_spaces_have_a_word_a_character(text: str, words: int) -> None:
    halved = metrics.rouge([text[: len(text) // 2]], [[text]])
    assert halved["rouge1"] == (0 if words == 1 else pytest.approx(200 * (words // 2) / (words + words // 2)))


def test_rouge_by_hand() -> None:
    """LCS "lamp in port": 3 of 4 and of 5 words; words in common 3; no pair but "in port"."""
    scores = metrics.rouge(["lamps stand in port"], [["The lamp is in Port."]])
    assert scores == pytest.approx({"rougeL": 200 / 3, "rouge1": 200 / 3, "rouge2": 200 / 7})
    assert set(metrics.rouge([""], [["lamp"]]).values()) == {0}


@pytest.mark.parametrize("seed", range(3))
def test_matthews_and_macro_f1_are_scikit_learns(seed: int) -> None:
    stream = random.Random(seed)
    golds, answers = (stream.choices(["no", "yes"], k=40) for _ in range(2))
    assert metrics.matthews(answers, golds, ("no", "yes")) == pytest.approx(100 * matthews_corrcoef(golds, answers))
    golds, answers = (stream.choices(["a", "b", "c"], k=40) for _ in range(2))
    theirs = f1_score(golds, answers, average="macro")
    assert metrics.macro_f1(answers, golds, ("a", "b", "c")) == pytest.approx(100 * theirs)


def test_garbage_does_not_pass_for_a_label() -> None:
    golds = ["no", "yes", "yes", "no"]
    assert metrics.matthews(["x", "", "no", "y"], golds, ("no", "yes")) == -100
    assert metrics.matthews(["no", "yes", "x", "no"], golds, ("no", "yes")) == pytest.approx(
        100 * matthews_corrcoef(golds, ["no", "yes", "no", "no"])
    )
    assert metrics.macro_f1(["x"] * 4, golds, ("no", "yes")) == 0
    assert metrics.macro_f1(["no", "yes", "x", "no"], golds, ("no", "yes", "never")) == pytest.approx(500 / 9)


def test_correlations_are_torchmetrics() -> None:
    stream = random.Random(3)
    golds = [stream.uniform(0, 5) for _ in range(50)]
    numbers = [round(gold + stream.uniform(-2, 2)) / 5 for gold in golds]  # with ties
    ours = metrics.correlations(numbers, golds)
    pair = torch.tensor(numbers, dtype=torch.float64), torch.tensor(golds, dtype=torch.float64)
    assert ours["pearson"] == pytest.approx(100 * pearson_corrcoef(*pair).item())
    assert ours["spearman"] == pytest.approx(100 * spearman_corrcoef(*pair).item(), abs=1e-3)
    assert metrics.correlations([2.0] * 50, golds) == {"pearson": 0, "spearman": 0}


def test_a_group_is_right_if_all_of_it_is() -> None:
    assert metrics.grouped_exact_match(["a", "b", "a", "b"], ["a", "b", "a", "a"], ["1", "1", "2", "2"]) == 50
