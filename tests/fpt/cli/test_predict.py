"""Answers are written line by line as they come, in the format of the file, beside the input's own columns."""

import csv
import io
import json
from dataclasses import replace
from itertools import islice, repeat

import pytest

from fpt.cli.use import in_lines
from fpt.tasks.fields import Record
from fpt.training.prediction import Prediction

ANSWER = Prediction("a,\tb", 0, "yes </s>", 'it\nis\t"yes"', -0.25, (("yes", 0.5), ("</s>", 0.25)))
ROW = {"note": "1,5", "text": "a\tb"}


@pytest.mark.parametrize(
    ("ending", "record", "lines"),
    [
        (".txt", ROW, ['it is\t"yes"']),
        (".csv", {}, ["input,prediction,score", '"a,\tb","it\nis\t""yes""",-0.25']),
        (".csv", ROW, ["note,text,prediction,score", '"1,5",a\tb,"it\nis\t""yes""",-0.25']),
        (
            ".csv",
            {"n": 1, "of": ["a"], "no": None},
            ["n,of,no,prediction,score", '1,"[""a""]",,"it\nis\t""yes""",-0.25'],
        ),
        (".tsv", ROW, ["note\ttext\tprediction\tscore", '1,5\ta b\tit is "yes"\t-0.25']),
    ],
)
def test_an_answer_is_a_line_or_a_row(ending: str, record: Record, lines: list[str]) -> None:
    assert list(in_lines(ending, [(record, ANSWER)])) == lines


@pytest.mark.parametrize("text", ["two\nlines", "two\r\nlines", "a\rreturn", "\n", ' a, "b"\n'])
def test_a_table_is_read_back_as_it_was(text: str) -> None:
    lines = in_lines(".csv", [({"text": text, "task": "x"}, replace(ANSWER, answer=text))] * 2)
    rows = list(csv.DictReader(io.StringIO("".join(f"{line}\n" for line in lines), newline="")))
    assert [(row["text"], row["task"], row["prediction"]) for row in rows] == [(text, "x", text)] * 2


def test_all_of_an_answer_is_json() -> None:
    (line,) = in_lines(".jsonl", [({}, ANSWER)])
    assert json.loads(line) == ANSWER.to_json()


@pytest.mark.parametrize("ending", [".jsonl", ".txt", ".csv", ".tsv"])
def test_a_line_does_not_wait_for_the_answers_after_it(ending: str) -> None:
    assert len(list(islice(in_lines(ending, repeat((ROW, ANSWER))), 3))) == 3
