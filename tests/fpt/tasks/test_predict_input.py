"""What is no character is refused where it enters, in one line that says where, or left out where that is asked."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fpt.config.compose import load
from fpt.errors import UserError
from fpt.tasks.catalogue import rules_of
from fpt.tasks.fields import Faults
from fpt.tasks.opening import open_task
from fpt.tasks.predict_input import by_template, examples_on_stream, raw_example, rows_and_examples
from tests.conftest import Outcome

Cli = Callable[..., Outcome]
ASKED = ["task=files", "task.source={q}", "task.target={a}", "task.id=i", "task.valid_share=0.5"]


def row(q: str, a: str, i: object) -> dict[str, object]:
    return {"q": q, "a": a, "i": i}


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        (
            "a.jsonl",
            [row("a", "x", 1), row("b \ud800", "y", 2)],
            "line 2: 'q', letter 3: half of",
        ),
        ("a.jsonl", [row("a", "x", 1), row("b\0", "y", 2)], "line 2: 'q', letter 2: a NUL"),
        (
            "a.jsonl",
            [row("a", "x", 1), row("b", "\udfff", 2)],
            "line 2: 'a', letter 1: half of",
        ),
        (
            "a.jsonl",
            [row("a", "x", 1), row("b", "y", "\ud800")],
            "line 2: 'i', letter 1: half of",
        ),
        ("a.csv", ["q,a,i", "a,x,1", "b\0,y,2"], "line 3: 'q', letter 2: a NUL"),
        ("a.tsv", ["q\ta\ti", "a\tx\t1", "b\0\ty\t2"], "line 3: 'q', letter 2: a NUL"),
        ("a.txt", ["a", "\0"], "line 2, letter 1: a NUL"),
    ],
)
def test_of_a_file(tmp_path: Path, name: str, lines: list[object], said: str) -> None:
    file = tmp_path / name
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    if name != "a.txt":
        with pytest.raises(UserError) as refused:
            open_task(load([*ASKED, f"task.train={file}"]))
        assert said in str(refused.value)
        if "'q'" not in said:  # of which alone a question consists
            return
        reads = by_template(rules_of(load([*ASKED, f"task.train={file}"]).task))
    else:
        reads = by_template(rules_of(load(["task=boolq"]).task))
    with pytest.raises(UserError) as refused:
        list(rows_and_examples(file, reads, Faults()))
    assert str(refused.value).startswith(f"{file}, {said}")
    assert [example.source for _, example in rows_and_examples(file, reads, Faults(skip=True))] == ["a"]


def test_of_a_stream_a_typed_word_and_a_text_from_python(cli: Cli) -> None:
    read, write = os.pipe()
    os.write(write, b"a\nb\0\n")
    os.close(write)
    with os.fdopen(read, "rb") as stream, pytest.raises(UserError, match="standard input, line 2, letter 2: a NUL"):
        list(examples_on_stream(stream))
    with pytest.raises(UserError, match="text, letter 1: half of a surrogate pair"):
        raw_example("\ud800")
    refused = cli("predict", "run=nowhere", "text=\ud800")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "not UTF-8" in refused.err
    with pytest.raises(UserError, match="half of a surrogate pair"):
        rules_of(load(["task=boolq", "task.template={question} \ud800"]).task)


@pytest.mark.parametrize(("word", "said"), [("lämp", "unknown verb"), (b"l\xe4mp", "not UTF-8")])
def test_of_bytes_under_a_locale_of_ascii(word: str | bytes, said: str) -> None:
    """Which Python would read as halves of surrogate pairs; what is UTF-8 is read as such."""
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-m", "fpt", word], env=ascii_only, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("template", "record", "source"),
    [
        ("{question}", {"question": "q"}, "ask q"),
        ("{question}", {"text": "whole"}, "whole"),
        ("{question} {more}", {"text": "whole", "question": "q"}, "'more' is missing"),
        ("{text}", {"text": "t"}, "ask t"),
        ("{text}", {"source": "whole"}, "whole"),
        (
            "{text} {more}",
            {"text": "t"},
            "'more' is missing; expected a text or a number, or the whole source as 'source'",
        ),
        ("{text.of} {source}", {"whole source": "whole"}, "whole"),
    ],
)
def test_a_whole_source_is_told_from_a_field(template: str, record: dict[str, Any], source: str) -> None:
    config = load(["task=files", "task.train=a.jsonl", f"task.source=ask {template}", "task.target={a}"])
    reads = by_template(rules_of(config.task))
    if "missing" in source:
        with pytest.raises(UserError, match=re.escape(source)):
            reads(record, "line 1")
    else:
        assert reads(record, "line 1").source == source


@pytest.mark.parametrize(
    ("given", "said"), [(None, "expected a text, not None"), (3, "not 3"), ("{mask} or {mask}", "has {mask} 2 times")]
)
def test_what_is_no_text_to_answer_is_named(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        raw_example(given)
