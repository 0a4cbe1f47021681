"""Tasks whose answer sums up a document: XSum."""

import re
from collections.abc import Sequence

from fpt import metrics
from fpt.tasks import sources
from fpt.tasks.sources import Record, Source
from fpt.tasks.task import ANSWER, Example, Form, Template

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")


def _example(template: Template, record: Record, where: str) -> Example:
    document, summary = (sources.text(record, name, where) for name in ("document", "summary"))
    source, spare = template.fill({"document": document})
    return Example(str(record.get("id", where)), source, ANSWER.format(answer=summary), (summary,), spare)


def score(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """ROUGE against each example's gold."""
    return metrics.rouge(answers, [example.golds[0] for example in examples])


def _first_sentence(_: Sequence[Example], valid: Sequence[Example]) -> tuple[str, list[str]]:
    documents = (example.source[slice(*example.spare)].strip() for example in valid)
    return "first sentence", [SENTENCE_END.split(document, maxsplit=1)[0] for document in documents]


FORMS = {
    "xsum": Form(
        records=Source(
            generated="xsum",
            hub=("EdinburghNLP/xsum",),
            splits=sources.two_splits("train.jsonl", "validation.jsonl", "val.jsonl"),
            read=sources.json_lines,
            revision="refs/convert/parquet",  # datasets no longer runs the script that made it
        ),
        template=Template("summarize: {document}", spare=("document",)),  # T5's own
        example=_example,
        metric="rougeL",
        from_text=str.strip,
        score=score,
        correct=None,
        baseline=_first_sentence,
    ),
}
