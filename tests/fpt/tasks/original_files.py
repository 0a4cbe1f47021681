"""GLUE's and SuperGLUE's tasks as they are distributed, and as the Hub has them, in a record or two."""

import json
from typing import Any

MULTIRC = {
    "idx": 4,
    "version": 1.1,
    "passage": {
        "text": "<b>Sent 1: </b>The lamp fell.<br><b>Sent 2: </b>It broke.",
        "questions": [
            {
                "question": "What broke?",
                "idx": 7,
                "answers": [{"text": "A lamp", "idx": 1, "label": 1}, {"text": "He", "idx": 2, "label": 0}],
            }
        ],
    },
}
PARAGRAPH = "paragraph: Sent 1: The lamp fell. Sent 2: It broke."
SPANS = {"span1_index": 1, "span1_text": "lamp", "span2_index": 5, "span2_text": "it"}
WIC = {"word": "lamp", "sentence1": "A lamp.", "sentence2": "Lamp it", "start1": 2, "end1": 6, "start2": 0, "end2": 4}
COPA = {"premise": "It fell.", "choice1": "It broke.", "choice2": "It sang.", "question": "effect"}


def tsv(*rows: str) -> str:
    return "".join(row.replace("|", "\t") + "\n" for row in rows)


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# The original file, each example's (id, source, answer), and the Hub's records of the same.
CASES: dict[str, tuple[str, list[tuple[str, str, str]], list[dict[str, Any]]]] = {
    "cola": (
        tsv('gj04|1||The "lamp fell.', "gj04|0|*|Lamp the."),
        [("0", 'sentence: The "lamp fell.', "acceptable"), ("1", "sentence: Lamp the.", "unacceptable")],
        [
            {"sentence": 'The "lamp fell.', "label": 1, "idx": 0},
            {"sentence": "Lamp the.", "label": 0, "idx": 1},
        ],
    ),
    "sst2": (
        tsv("sentence|label", "a fine lamp |1"),
        [("0", "sentence: a fine lamp ", "positive")],
        [{"sentence": "a fine lamp ", "label": 1, "idx": 0}],
    ),
    "mrpc": (
        "\ufeff" + tsv("Quality|#1 ID|#2 ID|#1 String|#2 String", "1|702|703|It fell.|Down it went."),
        [("0", "sentence1: It fell. sentence2: Down it went.", "equivalent")],
        [{"sentence1": "It fell.", "sentence2": "Down it went.", "label": 1, "idx": 0}],
    ),
    "stsb": (
        tsv(
            "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2|score",
            "0|main-captions|MSRvid|2012test|1|none|none|A lamp falls.|A lamp fell.|4.467",
            "1|main-captions|MSRvid|2012test|2|none|none|A lamp.|A stone.|0.500",
        ),
        [
            ("0", "sentence1: A lamp falls. sentence2: A lamp fell.", "4.4"),
            ("1", "sentence1: A lamp. sentence2: A stone.", "0.4"),
        ],
        [
            {"sentence1": "A lamp falls.", "sentence2": "A lamp fell.", "label": 4.4670000076293945, "idx": 0},
            {"sentence1": "A lamp.", "sentence2": "A stone.", "label": 0.5, "idx": 1},
        ],
    ),
    "qnli": (
        tsv("index|question|sentence|label", "0|What fell?|The lamp.|entailment", "1|Who?|Then.|not_entailment"),
        [
            ("0", "question: What fell? sentence: The lamp.", "entailment"),
            ("1", "question: Who? sentence: Then.", "not_entailment"),
        ],
        [
            {"question": "What fell?", "sentence": "The lamp.", "label": 0, "idx": 0},
            {"question": "Who?", "sentence": "Then.", "label": 1, "idx": 1},
        ],
    ),
    "rte": (
        tsv("index|sentence1|sentence2|label", "0|It fell.|It sang.|not_entailment"),
        [("0", "sentence1: It fell. sentence2: It sang.", "not_entailment")],
        [{"sentence1": "It fell.", "sentence2": "It sang.", "label": 1, "idx": 0}],
    ),
    "wnli": (
        tsv("index|sentence1|sentence2|label", "0|It fell on him.|The lamp fell.|1"),
        [("0", "sentence1: It fell on him. sentence2: The lamp fell.", "entailment")],
        [{"sentence1": "It fell on him.", "sentence2": "The lamp fell.", "label": 1, "idx": 0}],
    ),
    "cb": (
        jsonl({"premise": "p", "hypothesis": "h", "label": "contradiction", "idx": 3}),
        [("3", "hypothesis: h premise: p", "contradiction")],
        [{"premise": "p", "hypothesis": "h", "label": 1, "idx": 3}],
    ),
    "copa": (
        jsonl({**COPA, "label": 0, "idx": 2}),
        [("2", "choice1: It broke. choice2: It sang. premise: It fell. question: effect", "choice1")],
        [{**COPA, "label": 0, "idx": 2}],
    ),
    "multirc": (
        jsonl(MULTIRC),
        [
            ("4-7-1", f"question: What broke? answer: A lamp {PARAGRAPH}", "True"),
            ("4-7-2", f"question: What broke? answer: He {PARAGRAPH}", "False"),
        ],
        [
            {
                "paragraph": MULTIRC["passage"]["text"],
                "question": "What broke?",
                "answer": answer,
                "label": label,
                "idx": {"paragraph": 4, "question": 7, "answer": number},
            }
            for answer, label, number in (("A lamp", 1, 1), ("He", 0, 2))
        ],
    ),
    "wic": (
        jsonl({**WIC, "label": False, "idx": 0, "version": 1.1}),
        [("0", "sentence1: A lamp. sentence2: Lamp it word: lamp", "False")],
        [{**WIC, "label": 0, "idx": 0}],
    ),
    "wsc": (
        jsonl({"text": "The lamp fell, and then it, too.", "target": SPANS, "label": True, "idx": 0}),
        [("0", "text: The * lamp * fell, and then # it #, too.", "True")],
        [{"text": "The lamp fell, and then it, too.", **SPANS, "label": 1, "idx": 0}],
    ),
}
