"""Scores of answers against golds, from 0 to 100 (correlations from -100); a single answer's score is from 0 to 1."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence, Set
from itertools import chain
from operator import and_, eq
from statistics import fmean
from types import SimpleNamespace
from typing import NamedTuple

import regex

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
# Scripts without spaces between words; each of their characters counts as a word.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = rf"[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+"
WORDS = regex.compile(WORD, regex.V1)
WORDS_AND_MARKS = regex.compile(rf"{WORD}|\S", regex.V1)
ROUGES = ("rougeL", "rouge1", "rouge2")


def normalise(text: str) -> str:
    """SQuAD's normal form: lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016)."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


class Form(NamedTuple):
    """How texts are compared: the form in which equal ones are equal, and their words."""

    normal: Callable[[str], str]
    words: Callable[[str], list[str]]


SQUAD = Form(normalise, lambda text: normalise(text).split())
WRITTEN = Form(str.strip, WORDS_AND_MARKS.findall)  # as they are written, with punctuation marks as words


def accuracy(answers: Sequence[str], golds: Sequence[str]) -> float:
    """Percentage of answers that equal their gold; anything else, garbage included, is wrong."""
    return 100 * sum(answer == gold for answer, gold in zip(answers, golds, strict=True)) / len(golds)


def f1(answers: Sequence[str], golds: Sequence[str], positive: str) -> float:
    """F1 of one label; every wrong answer counts against it, so that garbage is not taken for the other label."""
    pairs = list(zip(answers, golds, strict=True))
    right = sum(answer == gold == positive for answer, gold in pairs)
    # A wrong answer to a positive is a miss, to a negative a false alarm; with two labels this is plain F1.
    wrong = sum(answer != gold for answer, gold in pairs)
    return 200 * right / (2 * right + wrong) if right else 0.0


def macro_f1(answers: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> float:
    """Mean F1 of the labels; an answer that is none of them is a miss for its gold."""
    from sklearn.metrics import f1_score  # takes a second to import

    return 100 * float(f1_score(golds, answers, labels=list(labels), average="macro", zero_division=0))


def set_scores(answers: Sequence[Set[str]], golds: Sequence[Set[str]], labels: Sequence[str]) -> dict[str, float]:
    """F1 of all labels together, the labels' mean F1, and the percentage of sets that are right; others are wrong."""
    right = Counter(chain(*map(and_, answers, golds)))
    both = Counter(chain(*answers, *golds))
    return {
        "micro_f1": 200 * right.total() / (both.total() or 1),
        "macro_f1": 200 * fmean(right[label] / (both[label] or 1) for label in labels),
        "subset_accuracy": 100 * fmean(map(eq, answers, golds)),
    }


def matthews(answers: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> float:
    """Matthews' correlation of two labels; any wrong answer, garbage included, counts as the other label."""
    from sklearn.metrics import matthews_corrcoef

    first, second = labels
    pairs = zip(answers, golds, strict=True)
    read = [gold if answer == gold else second if gold == first else first for answer, gold in pairs]
    return 100 * float(matthews_corrcoef(golds, read))


def grouped_exact_match(answers: Sequence[str], golds: Sequence[str], groups: Sequence[str]) -> float:
    """Percentage of groups all of whose answers equal their golds."""
    wrong = {group for answer, gold, group in zip(answers, golds, groups, strict=True) if answer != gold}
    num_groups = len(set(groups))
    return 100 * ((num_groups - len(wrong)) / num_groups)


def correlations(numbers: Sequence[float], golds: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation; 0 where either side is constant, for which they are undefined."""
    from scipy.stats import pearsonr, spearmanr

    measures = {"pearson": pearsonr, "spearman": spearmanr}
    if len(set(numbers)) == 1 or len(set(golds)) == 1:
        return dict.fromkeys(measures, 0.0)
    return {name: 100 * float(measure(numbers, golds).statistic) for name, measure in measures.items()}


def exact_match(answer: str, golds: Sequence[str], form: Form = SQUAD) -> bool:
    """Whether the answer is one of the golds, in the given form."""
    return form.normal(answer) in map(form.normal, golds)


def word_f1(answer: str, golds: Sequence[str], form: Form = SQUAD) -> float:
    """F1 (0 to 1) of the answer's words against the closest gold's, in the given form."""
    return max(_overlap(form.words(answer), form.words(gold)) for gold in golds)


def _overlap(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:  # an empty answer is right only if the gold is empty too
        return float(answer == gold)
    common = (Counter(answer) & Counter(gold)).total()
    return 2 * common / (len(answer) + len(gold))


def rouge(answers: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean F-measure of ROUGE-L, ROUGE-1 and ROUGE-2 with Porter's stemmer (Lin 2004), in any script.

    Of several golds each measure takes the closest, as rouge_score does.
    """
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which takes a second
    from rouge_score.tokenizers import DefaultTokenizer

    published = DefaultTokenizer(use_stemmer=True)  # it knows no letters but a to z

    def words(text: str) -> list[str]:
        if text.isascii():
            return list(published.tokenize(text))
        found = WORDS.findall(unicodedata.normalize("NFKC", text).lower())
        return [own for word in found for own in (published.tokenize(word) if word.isascii() else [word])]

    scorer = RougeScorer(ROUGES, tokenizer=SimpleNamespace(tokenize=words))
    scores = [scorer.score_multi(each, answer) for answer, each in zip(answers, golds, strict=True)]
    return {name: 100 * fmean(score[name].fmeasure for score in scores) for name in ROUGES}
