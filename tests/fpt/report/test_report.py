"""A report says what the runs' records say, and leaves the runs as they were."""

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpt.report.page import open_runs, output_of, write
from fpt.runs.folder import problem_of, read_ledger, set_aside
from fpt.runs.run import open_run
from tests.conftest import Outcome, quick_words
from tests.fpt.report.conftest import HOSTILE, stopped

Cli = Callable[..., Outcome]


@pytest.fixture
def finished(runs: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(runs["finished"], tmp_path / "finished")


def reported(cli: Cli, *words: object) -> str:
    done = cli("report", *map(str, words))
    assert done.status == 0, done.err
    return Path(done.out.splitlines()[0]).read_text()


def cells(page: str, name: str) -> list[list[str]]:
    """The texts of a table's body."""
    table = page[page.index(f'aria-label="{name}"') :]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    return [
        [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row)]
        for row in body.split("<tr>")[1:]
    ]


def test_a_page_stands_in_the_runs_folder(cli: Cli, finished: Path) -> None:
    """And the same run gives the same page."""
    done = cli("report", str(finished), "--json")
    assert done.status == 0, done.err
    written = json.loads(done.out)
    assert written["page"] == str(finished / "report.html")
    assert not list(finished.rglob("*.part"))
    page = (finished / "report.html").read_text()
    assert re.findall(r'alt="(.*?)"', page) == ["accuracy against FLOPs", "loss against updates"]
    assert page.count("data:image/svg+xml") == 2
    assert "Not finished" not in page
    assert reported(cli, finished) == page


def test_the_tables_hold_the_records_numbers(cli: Cli, finished: Path) -> None:
    page, result = reported(cli, finished), open_run(finished).result
    assert f'<span class="big">{result["metric"]["value"]:.2f}</span> accuracy' in page
    rows = cells(page, "Stages")
    assert [row[1:3] for row in rows] == [["2+6", "12/48"], ["3+6", "24/48"], ["5+6", "36/48"], ["6+6", "48/48"]]
    assert [row[4] for row in rows] == ["4", "4", "4", "8"]
    assert [row[8] for row in rows] == [f"{stage['score']:.2f}" for stage in result["stages"]]
    assert [row[7] for row in rows] == [f"{stage['seconds']:,.1f}" for stage in result["stages"]]
    assert all(row[9].endswith("B") for row in rows)
    assert [row[10] for row in rows] == ["–"] * 4  # memory is measured on a GPU alone
    assert "seed: 0" in page
    assert "most common label 50.00" in page


def test_vectors_are_shown_with_the_words_nearest_to_them(cli: Cli, finished: Path) -> None:
    learned, rows = open_run(finished).result["learned"], cells(reported(cli, finished), "Vectors")
    assert [row[1] for row in rows] == [f"{vector['norm']:.3g}" for vector in learned["vectors"]]
    for row, vector in zip(rows, learned["vectors"], strict=True):
        assert row[2] == "".join(f"{escape(one['token'])} {one['cosine']:.2f}" for one in vector["nearest"])


def test_examples_are_right_and_wrong_as_recorded(runs: dict[str, Path]) -> None:
    (run,) = open_runs([str(runs["finished"])])
    examples, rows = run.examples(3), open_run(runs["finished"]).predictions
    for name, correct in (("right", True), ("wrong", False)):
        expected = [row for row in rows if row["correct"] is correct]
        assert len(examples.get(name, [])) == min(3, len(expected))
        assert all(row in expected for row in examples.get(name, []))


def test_curves_end_where_the_records_do_and_stages_meet(runs: dict[str, Path]) -> None:
    (run,) = open_runs([str(runs["finished"])])
    assert list(run.spans("update")) == [(1, 0, 4), (2, 4, 8), (3, 8, 12), (4, 12, 20)]
    assert list(run.spans("flops"))[-1][2] == run.result["flops"]
    seconds = [end - start for _, start, end in run.spans("seconds")]
    assert min(seconds) > 0
    assert sum(seconds) <= sum(row["seconds"] for row in run.result["stages"]) + 0.01  # up to the last update
    assert [run.is_full(stage) for stage in (1, 2, 3, 4)] == [False, False, False, True]


def test_several_runs_share_a_page_and_unlike_metrics_no_axis(page: Path) -> None:
    text = page.read_text()
    first, second = text.index("<h2>boolq: accuracy"), text.index("<h2>faq: exact_match")
    assert text[first:second].count('alt="accuracy against FLOPs"') == 1
    assert "exact_match against" not in text[first:second]
    assert [row[4] for row in cells(text, "Runs")] == ["0", "1", "0"]
    differing = {row[0]: row[1:] for row in cells(text, "Differences")}
    assert differing["seed"] == ["0", "1", "0"]
    assert differing["task.name"] == ["boolq", "boolq", "faq"]
    assert "optim.lr" not in differing


def test_where_a_page_goes(runs: dict[str, Path]) -> None:
    """Into one run's folder, beside the first of several, or where it is told to."""
    places = [str(runs["finished"]), str(runs["faq"])]
    assert output_of(places[:1], None) == runs["finished"] / "report.html"
    assert output_of(places, None) == runs["finished"].parent.resolve() / "report.html"
    assert output_of(places, "here.html") == Path("here.html")


def test_an_unfinished_run_is_shown_as_far_as_it_came(cli: Cli, runs: dict[str, Path], tmp_path: Path) -> None:
    page = reported(cli, runs["unfinished"], f"output={tmp_path / 'page.html'}")
    assert "Not finished: 10 of 20 updates so far." in page
    rows = cells(page, "Stages")
    assert [row[4] for row in rows] == ["4 of 4", "4 of 4", "2 of 4", "0 of 8"]
    assert rows[3][5:9] == ["–", "100.0%", "–", "–"]
    assert "outputs are kept when a run ends" in page


@pytest.mark.trains
def test_a_run_that_has_not_begun_to_learn_has_a_page(cli: Cli, checkpoint: Path, boolq: Path, tmp_path: Path) -> None:
    stopped(quick_words(checkpoint, boolq, tmp_path / "run"), after=0)
    page = reported(cli, tmp_path / "run")
    assert "No update so far." in page


@pytest.mark.trains
def test_a_late_prompts_last_stage_is_the_full_model(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    """An update of it costs less than vanilla prompt tuning's, which says nothing about the model."""
    more = ("prompt=late", "schedule=ld", "train.updates=8", "schedule.partial_end=true")
    assert cli("train", *quick, *more).status == 0
    assert "partial model, and its score is on that" not in reported(cli, tmp_path / "run")
    (run,) = open_runs([str(tmp_path / "run")])
    assert [run.is_full(stage) for stage in (1, 2, 3, 4)] == [False, False, False, True]


def test_whatever_an_example_holds_is_text(page: Path) -> None:
    text = page.read_text()
    assert HOSTILE not in text
    assert "&lt;/script&gt;&lt;script&gt;document.title" in text
    assert "{{ 7 * 7 }}" in text
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "faq $x^ &lt;b&gt;&amp;" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:|\#)""", text)


@pytest.mark.trains
def test_a_report_in_its_folder_does_not_disturb_the_run(
    cli: Cli, checkpoint: Path, boolq: Path, finished: Path, tmp_path: Path
) -> None:
    """A run that was stopped, reported on and resumed ends as one that was not."""
    words = quick_words(checkpoint, boolq, tmp_path / "run")
    stopped(words, after=10)
    reported(cli, tmp_path / "run")
    resumed = cli("train", *words)
    assert resumed.status == 0, resumed.err
    prompt = "prompt.safetensors"
    assert (tmp_path / "run" / prompt).read_bytes() == (finished / prompt).read_bytes()
    reported(cli, tmp_path / "run")
    assert not any(
        problem_of(tmp_path / "run" / name, hashes) for name, hashes in read_ledger(tmp_path / "run").items()
    )
    again = cli("train", *words)
    assert again.status == 0
    assert "this run is finished" in again.err
    assert set_aside(tmp_path / "run") == tmp_path / "run.old-1"  # what resume=never begins with


def spoil(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def append(line: str) -> Callable[[Path], object]:
    """A line of metrics.jsonl behind those of the last saved state."""

    def harm(folder: Path) -> None:
        with (folder / "metrics.jsonl").open("a") as stream:
            stream.write(f"{line}\n")

    return harm


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / "checksums.json").unlink(), "is not the folder of a run"),
        (spoil("checksums.json", "{"), "is damaged"),
        (spoil("result.json", "{}"), "result.json: is damaged"),
        (spoil("plan.json", "{}"), "plan.json: is damaged"),
        (spoil("config.yaml", ":"), "config.yaml: is damaged"),
        (spoil("predictions.jsonl", ""), "predictions.jsonl: is damaged"),
        (spoil("metrics.jsonl", "{\n"), "metrics.jsonl: is damaged"),
        (lambda folder: (folder / "metrics.jsonl").unlink(), "metrics.jsonl: is missing"),
        (append("{"), "metrics.jsonl: is not what fpt writes"),
        (append("[]"), "is not what fpt writes"),
        (append('{"update": 1, "stage": 9, "flops": 1, "seconds": 1, "loss": 1.0}'), "is not what fpt writes"),
        (append('{"update": 1, "stage": 1, "flops": 1, "seconds": 1, "loss": "1"}'), "is not what fpt writes"),
        (append('{"update": 1, "stage": 1, "flops": 1, "seconds": 1, "loss": NaN}'), "is not what fpt writes"),
        (append('{"update": 1, "stage": 1, "loss": 1.0}'), "is not what fpt writes"),
        (append('{"update": 1, "stage": 1, "flops": 1, "seconds": 1, "split": "validation"}'), "has no accuracy"),
    ],
)
def test_a_harmed_run_is_one_line(cli: Cli, finished: Path, harm: Callable[[Path], object], said: str) -> None:
    harm(finished)
    done = cli("report", str(finished))
    assert done.status == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not (finished / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give the folders of one or more runs"),
        (["RUN", "RUN"], "is given twice"),
        (["RUN", "output=RUN/config.yaml"], "ends in .html"),
        (["RUN", "output=/proc/none/page.html"], "cannot be written"),
        (["RUN", "train.updates=3"], "run=train.updates=3: no such folder"),
        (["RUN", "--outptu", "x"], "Did you mean '--output'"),
    ],
)
def test_words_that_cannot_be_used_are_one_line(cli: Cli, finished: Path, words: list[str], said: str) -> None:
    done = cli("report", *(word.replace("RUN", str(finished)) for word in words))
    assert done.status == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_a_folder_whose_name_holds_an_equals_sign_is_a_folder(cli: Cli, finished: Path) -> None:
    page = reported(cli, finished.rename(finished.with_name("lr=0.3")))
    assert "<title>fpt report: lr=0.3</title>" in page


def test_a_run_of_the_papers_length_draws_in_seconds_and_fits_a_mail(finished: Path, tmp_path: Path) -> None:
    """30,000 updates and 60 validations; the processor's seconds, as other tests may run beside."""
    random = np.random.default_rng(0)
    updates: list[Any] = []
    validations: list[Any] = []
    for update in range(1, 30_001):
        line = {"update": update, "stage": min(4, 1 + (update - 1) // 7_500), "flops": update * 10**12}
        updates.append({**line, "seconds": update / 3, "loss": float(np.exp(-update / 9_000) + random.random())})
        if update % 500 == 0:
            score = float(90 - 40 * np.exp(-update / 9_000) + random.random())
            validations.append({**line, "seconds": update / 3, "split": "validation", "accuracy": score})
    run = replace(open_runs([str(finished)])[0], updates=updates, validations=validations)
    begun = time.process_time()
    page = tmp_path / "page.html"
    write([run], page)
    assert time.process_time() - begun < 10
    assert page.stat().st_size < 2**20
