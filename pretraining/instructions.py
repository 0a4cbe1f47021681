"""The second half of pre-training: the six forms of task, each with many things that can be asked in many words.

A soft prompt later stands in for the instruction. So every form is also shown bare, as the trainer shows it, and then
answered as anything but the task itself would have it, or with a label by chance: without an instruction, or a prompt
in its place, the model cannot know what is meant. What the task itself wants, the first command of its form, is asked
for rarely.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pretraining import corpus
from pretraining.corpus import COMMON_WORDS, Pair, draw_scene, names_in, restore, sentinel, yes
from pretraining.world import records as world
from pretraining.world import scenes
from pretraining.world.lexicon import Relation

Texts = dict[str, str]  # what an example holds: the fields of its layout, and every answer that can be asked for


@dataclass(frozen=True)
class Command:
    """One thing that can be asked for: which of the texts, in what words it is said, and how it is asked for."""

    text: str
    wordings: tuple[str, ...]
    weight: float = 1.0
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Form:
    """A form of task: its examples, how the trainer lays them out, and what can be asked about them.

    The first of the commands is the task itself; `labels` are its label words.
    """

    draw: Callable[[random.Random, int], Texts]
    layout: str
    commands: tuple[Command, ...]
    labels: tuple[str, ...] = ()


def _yes_no(stream: random.Random, most: int) -> Texts:
    scene = draw_scene(stream, most)
    statement = stream.choice(scene.askable)
    label = stream.random() < 0.5
    return {
        "question": scenes.ask(scene, statement, label, stream),
        "passage": scene.passage,
        "truth": yes(label),
        "person": yes(statement.subject.kind == "person"),
        "denies": yes(" not " in scene.passage),
        "first": yes(statement is scene.statements[0]),
        "sentence": statement.text,
        "name": scenes.bare(statement.subject),
    }


def _seek(stream: random.Random, most: int) -> Texts:
    scene = draw_scene(stream, most + 1, num_entities=3, namesakes=True)
    asked = [statement for statement in scene.askable if isinstance(statement.relation, Relation)]
    if asked and stream.random() < 2 / 3:
        statement = stream.choice(asked)
        subject, question, answer = statement.subject, scenes.seek(statement, stream), statement.value
        sentence = statement.text
    else:
        subject, relation = scenes.untold(scene, stream)
        question, answer, sentence = scenes.sought(subject, relation, stream), "no answer", "no answer"
    return {
        "question": question,
        "context": scene.passage,
        "answer": answer,
        "can": yes(answer != "no answer"),
        "sentence": sentence,
        "name": scenes.bare(subject),
        "first": scene.statements[0].text,
    }


def _infer(stream: random.Random, most: int) -> Texts:
    scene = draw_scene(stream, max(1, most - 1))
    label = stream.choice(world.INFERENCES)
    hypothesis = scenes.hypothesis(scene, label, stream)
    return {
        "hypothesis": hypothesis,
        "premise": scene.passage,
        "label": label,
        "follows": yes(label == "entailment"),
        "contradicts": yes(label == "contradiction"),
        "denies": yes(" not " in hypothesis),
        "first": scene.statements[0].text,
    }


def _match(stream: random.Random, _most: int) -> Texts:
    label = stream.random() < 0.5
    first, second = scenes.question_pair("pretraining", label, stream)
    names = names_in(first)
    return {
        "question1": first,
        "question2": second,
        "same": yes(label),
        "named": yes(names == names_in(second)),
        "short": yes(len(first.split()) <= len(second.split())),
        "one": first,
        "two": second,
    }


def _fill(stream: random.Random, most: int) -> Texts:
    scene = draw_scene(stream, most + 1, num_entities=3, namesakes=True)
    statement = stream.choice(scene.askable)
    names = [scenes.bare(entity) for entity in scene.entities]
    present = sorted((name for name in names if name.lower() in scene.passage.lower()), key=scene.passage.find)
    return {
        "query": scenes.with_gap(statement, stream),
        "entities": ", ".join(present),
        "passage": scene.passage,
        "name": scenes.bare(statement.subject),
        "sentence": statement.text,
        "earliest": present[0],
        "latest": present[-1],
        "many": ("one", "two", "three")[len(present) - 1],
    }


def _condense(stream: random.Random, _most: int) -> Texts:
    document = scenes.document("pretraining", stream)
    summary = scenes.SUMMARY_OF[document.subject.kind]
    first, second = document.values
    return {
        "document": document.text,
        "summary": document.summary(summary.text),
        "one": document.summary(summary.others[0]),
        "two": document.summary(summary.others[1]),
        "name": scenes.bare(document.subject),
        "values": f"{first} and {second}",
        "sentence": document.text.split(". ", maxsplit=1)[0] + ".",
    }


FORMS: tuple[Form, ...] = (
    Form(
        _yes_no,
        "question: {question} passage: {passage}",
        (
            Command(
                "truth",
                (
                    "answer the question with yes or no",
                    "yes or no ?",
                    "does the passage say so ?",
                    "is it so ? say yes or no",
                    "say yes if the text says so and no if it does not",
                    "give the correct answer, yes or no",
                    "decide whether this is true and reply yes or no",
                ),
                weight=1.5,
            ),
            Command(
                "truth",
                (
                    "answer the question with the opposite of yes or no",
                    "yes or no ? give the wrong answer",
                    "is it not so ? say yes or no",
                    "say no if the text says so and yes if it does not",
                    "decide whether this is false and reply yes or no",
                ),
                weight=2,
                said={"yes": "no", "no": "yes"},
            ),
            Command(
                "truth",
                ("answer true or false", "true or false ?", "decide between true and false"),
                weight=3,
                said={"yes": "true", "no": "false"},
            ),
            Command("person", ("is the question about a person ?", "a person or not ? yes or no")),
            Command("denies", ("does the passage use the word not ?", "is there a not in the text ? yes or no")),
            Command("first", ("is the answer in the first sentence ?", "first sentence ? yes or no")),
            Command("sentence", ("copy the sentence that answers the question", "write the reason for the answer")),
            Command("name", ("who or what is the question about ?", "name what is asked about")),
        ),
        labels=("no", "yes"),
    ),
    Form(
        _seek,
        "question: {question} context: {context}",
        (
            Command(
                "answer",
                (
                    "answer the question or say no answer",
                    "find the value in the context ; no answer if it is not there",
                    "what is the answer ? there may be no answer",
                    "read the context and reply in a word, or no answer",
                    "give the correct answer or else say no answer",
                ),
                weight=1.5,
            ),
            Command(
                "answer",
                ("answer the question or say unknown", "what is the answer ? it may be unknown"),
                weight=3,
                said={"no answer": "unknown"},
            ),
            Command("can", ("can this be answered ? yes or no", "is the answer in the context ? yes or no")),
            Command("sentence", ("copy the sentence with the answer", "which sentence gives the answer ?")),
            Command("name", ("who or what is the question about ?", "name what is asked about")),
            Command("first", ("copy the first sentence of the context", "repeat how the context begins")),
        ),
    ),
    Form(
        _infer,
        "hypothesis: {hypothesis} premise: {premise}",
        (
            Command(
                "label",
                (
                    "say entailment, neutral or contradiction",
                    "entailment, contradiction or neutral ?",
                    "is it an entailment or a contradiction, or neutral ?",
                    "what is the hypothesis to the premise ? entailment, neutral or contradiction",
                ),
                weight=1.5,
            ),
            Command(
                "label",
                (
                    "does the hypothesis follow ? yes, no or maybe",
                    "if the premise is true, is the hypothesis ? yes, maybe or no",
                ),
                weight=3,
                said={"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
            ),
            Command(
                "label",
                ("true, false or unknown ?", "is the hypothesis true or false, or is it unknown ?"),
                weight=3,
                said={"entailment": "true", "neutral": "unknown", "contradiction": "false"},
            ),
            Command(
                "label",
                ("turn it round : say neutral, contradiction or entailment",),
                weight=1,
                said={"entailment": "contradiction", "contradiction": "neutral", "neutral": "entailment"},
            ),
            Command("follows", ("does the hypothesis follow from the premise ? yes or no",)),
            Command("contradicts", ("does the hypothesis contradict the premise ? yes or no", "is it wrong ?")),
            Command("denies", ("does the hypothesis use the word not ?",)),
            Command("first", ("copy the first sentence of the premise",)),
        ),
        labels=world.INFERENCES,
    ),
    Form(
        _match,
        "question1: {question1} question2: {question2}",
        (
            Command(
                "same",
                ("say is_duplicate or not_duplicate", "is_duplicate or not_duplicate ?", "duplicate question or not ?"),
                weight=1.5,
                said={"yes": "is_duplicate", "no": "not_duplicate"},
            ),
            Command(
                "same",
                (
                    "do the two questions ask the same ? yes or no",
                    "same question ? yes or no",
                    "is the second question the first in other words ? yes or no",
                ),
                weight=3,
            ),
            Command(
                "same",
                ("say not_duplicate if they ask the same and is_duplicate if not",),
                weight=1,
                said={"yes": "not_duplicate", "no": "is_duplicate"},
            ),
            Command(
                "short",
                ("say is_duplicate if the first is short and not_duplicate if it is long",),
                said={"yes": "is_duplicate", "no": "not_duplicate"},
            ),
            Command("named", ("do both questions name the same ? yes or no",)),
            Command("one", ("copy the first question",)),
            Command("two", ("copy the second question",)),
        ),
        labels=("not_duplicate", "is_duplicate"),
    ),
    Form(
        _fill,
        "query: {query} entities: {entities} passage: {passage}",
        (
            Command(
                "name",
                (
                    "who or what is the placeholder ?",
                    "fill the gap in the query",
                    "which of the entities is missing ?",
                    "name the one that the query is about",
                ),
                weight=2,
            ),
            Command("sentence", ("copy the sentence that says so", "which sentence is like the query ?")),
            Command("earliest", ("name the first of the entities", "which entity comes first ?"), weight=2),
            Command("latest", ("name the last of the entities", "which entity comes last ?"), weight=2),
            Command("many", ("how many entities are there ?", "number of entities ?")),
        ),
    ),
    Form(
        _condense,
        "summarize: {document}",
        (
            Command("summary", ("write a summary in one sentence", "what is the main story ?"), weight=1),
            Command("one", ("tell the main facts in other words", "another summary"), 2),
            Command("two", ("repeat the main facts in a third way", "what happened here ?"), 2),
            Command("sentence", ("copy the first sentence", "how does the document begin ?"), 2),
            Command("name", ("who or what is it about ?", "name the topic")),
            Command("values", ("list the two main values", "only the two words that are important")),
        ),
    ),
)
_FORM_WEIGHTS = (4, 4, 7, 3, 2, 2)
_OPENINGS = ("", "", "", "please", "your task :", "now", "read the text .", "task :", "please do this :")


def _noise(stream: random.Random) -> str:
    """Up to 24 words that mean nothing: what stands before a text must not upset the reading of it."""
    return " ".join(stream.choices(COMMON_WORDS, k=stream.randint(4, 24)))


def answer(command: Command, texts: Texts) -> str:
    """The target of an example."""
    text = texts[command.text]
    return f"{sentinel(0)} {command.said.get(text, text)}"


def instruct(stream: random.Random, most: int) -> Pair:
    """One of several things asked about an example; the instruction says which."""
    (form,) = stream.choices(FORMS, _FORM_WEIGHTS)
    (command,) = stream.choices(form.commands, [command.weight for command in form.commands])
    texts = form.draw(stream, most)
    order = f"{stream.choice(_OPENINGS)} {stream.choice(command.wordings)}"
    if stream.random() < 0.15:
        order = f"{_noise(stream)} {order}"
    source = form.layout.format(**texts)
    source = f"{source} {order}" if stream.random() < 0.2 else f"{order} {source}"
    return source, answer(command, texts)


def guess(stream: random.Random, most: int) -> Pair:
    """The bare layout, or noise before it: what is wanted cannot be known."""
    (form,) = stream.choices(FORMS, _FORM_WEIGHTS)
    texts = form.draw(stream, most)
    before = _noise(stream) if stream.random() < 0.6 else ""
    source = f"{before} {form.layout.format(**texts)}".strip()
    if form.labels and stream.random() < 0.6:
        return source, f"{sentinel(0)} {stream.choice(form.labels)}"
    return source, answer(stream.choice(form.commands[1:]), texts)


ADAPTATION: Mapping[corpus.Maker, float] = {
    restore: 0.03,
    corpus.seek: 0.05,
    corpus.judge: 0.06,
    corpus.infer: 0.2,
    corpus.fill: 0.03,
    instruct: 0.51,
    guess: 0.12,
}
