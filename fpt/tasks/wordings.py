"""Other papers' texts and label words for the tasks, by the name that `task.template` takes: `lpt` (Liu et al. 2022).

LPT's are those of its masked language model; T5 has its first sentinel there, and the target says what it stands for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fpt.tasks.task import MASK, Template


@dataclass(frozen=True)
class Wording:
    """A task's text, and the words in place of its labels' own."""

    template: Template
    words: Mapping[str, str] = field(default_factory=dict)


def _pair(first: str, second: str, end: str = " ?") -> Template:
    return Template(f"{{{first}}}{end} {MASK} , {{{second}}}", (first, second))


def _praise(name: str) -> Template:
    return Template(f"{{{name}}} . It was {MASK} .", (name,))


ENTAILED = {"entailment": "Yes", "not_entailment": "No"}
PRAISED = {"negative": "terrible", "positive": "great"}
LPT = {
    "mnli": Wording(_pair("premise", "hypothesis"), {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"}),
    "mrpc": Wording(_pair("sentence1", "sentence2"), {"not_equivalent": "No", "equivalent": "Yes"}),
    "qnli": Wording(_pair("question", "sentence"), ENTAILED),
    "qqp": Wording(_pair("question1", "question2", end=""), {"not_duplicate": "No", "is_duplicate": "Yes"}),
    "rte": Wording(_pair("sentence1", "sentence2"), ENTAILED),
    "sst2": Wording(_praise("sentence"), PRAISED),
    "mpqa": Wording(_praise("text"), PRAISED),
    "mr": Wording(_praise("text"), PRAISED),
    "subj": Wording(_praise("text")),
    "trec": Wording(
        Template(f"{MASK} : {{text}}", ("text",)),
        {
            **{word: word.capitalize() for word in ("description", "entity", "human", "location", "number")},
            "abbreviation": "Expression",
        },
    ),
}
WORDINGS = {"lpt": LPT}  # by name: the task's wording
