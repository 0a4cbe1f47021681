"""Other papers' texts and label words for the tasks, by the name that `task.template` takes: `lpt` (Liu et al. 2022).

LPT's are those of its masked language model; T5 has its first sentinel there, and the target says what it stands for.
"""

from typing import NamedTuple

from fpt.tasks.task import MASK, Template


class Wording(NamedTuple):
    """A task's text, and the words of its labels in their order; empty where they stay."""

    template: Template
    words: tuple[str, ...] = ()


def _pair(first: str, second: str, end: str = " ?") -> Template:
    return Template(f"{{{first}}}{end} {MASK} , {{{second}}}", (first, second))


def _praise(name: str) -> Template:
    return Template(f"{{{name}}} . It was {MASK} .", (name,))


KINDS = ("Description", "Entity", "Expression", "Human", "Location", "Number")
LPT = {
    "mnli": Wording(_pair("premise", "hypothesis"), ("Yes", "Maybe", "No")),
    "mrpc": Wording(_pair("sentence1", "sentence2"), ("No", "Yes")),
    "qnli": Wording(_pair("question", "sentence"), ("Yes", "No")),
    "qqp": Wording(_pair("question1", "question2", end=""), ("No", "Yes")),
    "rte": Wording(_pair("sentence1", "sentence2"), ("Yes", "No")),
    "sst2": Wording(_praise("sentence"), ("terrible", "great")),
    "mpqa": Wording(_praise("text"), ("terrible", "great")),
    "mr": Wording(_praise("text"), ("terrible", "great")),
    "subj": Wording(_praise("text")),
    "trec": Wording(Template(f"{MASK} : {{text}}", ("text",)), KINDS),
}
WORDINGS = {"lpt": LPT}  # by name: the task's wording
