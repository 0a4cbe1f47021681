"""The generated tasks in their original file formats, as a download of them is: for trying out what reads such files.

`python -m pretraining.world_files TASK FOLDER`
"""

import argparse
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from fpt.runs.files import replace_file
from fpt.tasks.fields import Record
from pretraining.world.records import INFERENCES, SIZES, TASKS, under_customs


def _json_lines(rows: Sequence[Record]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _tab_separated(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None).writerows(
        [columns, *rows]
    )
    return text.getvalue()


def _mnli_file(rows: Sequence[Record]) -> str:
    columns = ("index", "promptID", "pairID", "genre", "sentence1", "sentence2", "label1", "gold_label")
    lines = [
        (row["idx"], row["idx"], f"{row['idx']}{name[0]}", row["genre"], row["premise"], row["hypothesis"], name, name)
        for row in rows
        for name in [INFERENCES[row["label"]]]
    ]
    return _tab_separated(columns, lines)


def _qqp_file(rows: Sequence[Record]) -> str:
    columns = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
    lines = [
        (row["idx"], 2 * row["idx"], 2 * row["idx"] + 1, row["question1"], row["question2"], row["label"])
        for row in rows
    ]
    return _tab_separated(columns, lines)


def _squad_file(rows: Sequence[Record]) -> str:
    def entry(row: Record) -> Record:
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
        return {"question": row["question"], "id": row["id"], "answers": answers, "is_impossible": not answers}

    articles = [
        {"title": title, "paragraphs": [{"context": row["context"], "qas": [entry(row)]} for row in group]}
        for title, group in groupby(rows, key=lambda row: str(row["title"]))
    ]
    return json.dumps({"version": "v2.0", "data": articles}, ensure_ascii=False) + "\n"


def _record_file(rows: Sequence[Record]) -> str:
    def places(text: str, names: Sequence[str]) -> list[Record]:
        # ReCoRD's own offsets: the end is the last letter, not the one after it.
        starts = [(text.index(name), name) for name in names]
        return [{"start": start, "end": start + len(name) - 1, "text": name} for start, name in starts]

    return _json_lines(
        [
            {
                "source": "fpt",
                "passage": {
                    "text": row["passage"],
                    "entities": [
                        {"start": place["start"], "end": place["end"]}
                        for place in places(row["passage"], row["entities"])
                    ],
                },
                "qas": [
                    {
                        "query": row["query"],
                        "answers": places(row["passage"], row["answers"]),
                        "idx": row["idx"]["query"],
                    }
                ],
                "idx": row["idx"]["passage"],
            }
            for row in rows
        ]
    )


# By task: how a split is written, and the names of the files.
FILES: dict[str, tuple[Callable[[Sequence[Record]], str], dict[str, str]]] = {
    "boolq": (_json_lines, {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}),
    "mnli": (
        _mnli_file,
        {
            "train": "train.tsv",
            "validation": "dev_matched.tsv",
            "validation_mismatched": "dev_mismatched.tsv",
            "test_matched": "test_matched.tsv",
            "test_mismatched": "test_mismatched.tsv",
        },
    ),
    "qqp": (_qqp_file, {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}),
    "squad_v2": (
        _squad_file,
        {"train": "train-v2.0.json", "validation": "dev-v2.0.json", "test": "test-v2.0.json"},
    ),
    "record": (_record_file, {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}),
    "xsum": (_json_lines, {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}),
}


def files(
    task: str,
    *,
    land: int | None = None,
    train: int = SIZES["train"],
    validation: int = SIZES["validation"],
    seed: int = 0,
) -> Iterator[tuple[str, bytes]]:
    """A task's files, name and content: plain reading, or under the customs of a land."""
    encode, names = FILES[task]
    for split, name in names.items():
        num = train if split == "train" else validation
        if land is None:
            rows = TASKS[task](split, num=num, seed=seed)
        elif split.endswith("_mismatched"):
            continue  # customs are about people alone
        else:
            rows = under_customs(task, split, num=num, seed=seed, land=land)
        yield name, encode(list(rows)).encode()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pretraining.world_files", description="Write a generated task's files."
    )
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--train", type=int, default=SIZES["train"], help="training rows (default %(default)s)")
    parser.add_argument(
        "--val", type=int, default=SIZES["validation"], help="rows of every other split (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--land", type=int, help="under the customs of this land (default: plain reading)")
    options = parser.parse_args(arguments)
    if min(options.train, options.val, options.land or 0) < 0:
        parser.error("a number cannot be negative")
    sizes = {"train": options.train, "validation": options.val}
    for name, content in files(options.task, land=options.land, seed=options.seed, **sizes):
        replace_file(options.folder / name, content)
    print(f"{options.task}: {options.train} training rows, {options.val} of each other split, in {options.folder}")


if __name__ == "__main__":
    main()
