"""What the embedded backbone reads in pre-training: texts and instructions made from the generated world.

Everything is told about entities of the split `pretraining` only. An example is a pair of texts, source and target, in
T5's own notation: sentinels stand for what is asked for and open each answer. A maker draws one example from a random
stream, with at most so many statements in its passage.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fpt.tasks import lexicon, world

# Words that instructions and later tasks are made of; the world's own are added to them.
_COMMON_TEXT = """
a about above according after again all also although always among an and another answer answers any are arrived as
ask asked at away be because been before began below best better between bigger book both bought brother brought
built but by called came can car change changed choose city claim closed cold come complete context contradiction
copy correct could day daughter decide describe describes did died different document does door duplicate during
each early either empty end entailment entity even evening event ever every everyone fact facts fall false family
father fill find finish first five follow following follows for found four friend from full gap gave get give given
gives go good great had half happened has have he heard held help her here herself hide him himself his hold home
house how however hundred i if important in incorrect information instead into is it its january february march
april may june july august september october november december keep kept kind knew know large last late later least
leave left less let letter like line list listen little live location long look lost made main make making man many
market may maybe me meaning means meet met middle missing monday tuesday wednesday thursday friday saturday sunday
money month more morning most mother moved much must my name named near need neutral never new news next night no
nobody none nor not nothing now number of off old on once one only open opened opinion opposite option or order
other our out over own pair part passage people perhaps person phrase pick place placeholder please possible premise
hypothesis produce question questions quite read reader really reason record repeat replace reply report respond
response rest return right said same saw say says school second see seen sell sentence sentences several shall she
short should show shows sister small so sold some someone something soon speak state stated statement states still
stop story street such summarize summary supported sure take taken talk task tell tells text than that the their
them then there these they thing things think third this those three through time title to today together told
tomorrow topic town travelled true truth turn two under unknown unless until up upon us use used using value very
visited wait want wanted was water way we week well went were what when where whether which while who whole whom
whose why will winner with within without won word words work world would write written wrong year years yes
yesterday yet you young your zero
"""
COMMON_WORDS = _COMMON_TEXT.split()

Pair = tuple[str, str]
Maker = Callable[[random.Random, int], Pair]


def words() -> list[str]:
    """Every word that the vocabulary should hold in one piece, in lower case and alphabetical order."""
    templates = [
        template
        for relation in lexicon.RELATIONS
        for template in (
            *relation.states,
            *relation.contrasts,
            relation.denial,
            *relation.asks,
            *relation.seeks,
        )
    ]
    templates += [f"{scale.more} than {scale.less}" for scale in lexicon.SCALES]
    found = {word for text in templates for word in re.findall(r"\w+", re.sub(r"{.}", " ", text))}
    return sorted({word.lower() for word in (*COMMON_WORDS, *lexicon.words(), *found)})


def sentinel(index: int) -> str:
    """T5's mark for the `index`-th missing piece."""
    return f"<extra_id_{index}>"


def _scene(stream: random.Random, most: int) -> world.Scene:
    return world.scene("pretraining", stream, num_statements=stream.randint(1 + most // 4, most))


def _askable(scene: world.Scene) -> list[world.Statement]:
    return [statement for statement in scene.statements if statement.askable]


def _retold(statement: world.Statement, stream: random.Random) -> str:
    """The same fact in another sentence, or now and then in the same one."""
    subject, relation = statement.subject, statement.relation
    if isinstance(relation, lexicon.Scale):
        reverse = stream.random() < 0.5
        return world.compare(relation, subject.name, statement.value, reverse=reverse)
    if not statement.askable:
        return world.sentence(relation.denial, subject, denied=statement.value)
    return world.sentence(stream.choice(relation.states), subject, statement.value)


def _corrupt(words: list[str], stream: random.Random, share: float) -> Pair:
    """Span corruption: about `share` of the words, in spans of one to three, replaced by sentinels."""
    source: list[str] = []
    target: list[str] = []
    index = hidden = 0
    # A span of two words on average starts at this share of the positions.
    starts = share / (2 - share)
    while index < len(words):
        if hidden < 20 and stream.random() < starts:
            length = stream.randint(1, 3)
            source.append(sentinel(hidden))
            target += [sentinel(hidden), *words[index : index + length]]
            hidden += 1
            index += length
            # Two spans never touch: as one they could not be told apart.
            if index < len(words):
                source.append(words[index])
                index += 1
        else:
            source.append(words[index])
            index += 1
    if not hidden:
        return " ".join([*words[:-1], sentinel(0)]), f"{sentinel(0)} {words[-1]}"
    return " ".join(source), " ".join(target)


def restore(stream: random.Random, most: int) -> Pair:
    """Span corruption of a text that tells its facts twice, so that most of what is hidden can be found."""
    scene = _scene(stream, min(most, 3))
    told = [statement.text for statement in scene.statements]
    told += [_retold(statement, stream) for statement in scene.statements]
    stream.shuffle(told)
    return _corrupt(" ".join(told).replace(".", " .").split(), stream, 0.25)


def _gaps(questions: Sequence[str], answers: Sequence[str], passage: str) -> Pair:
    """Questions about one passage, a sentinel after each where its answer belongs."""
    asked = [f"question: {text} {sentinel(index)}" for index, text in enumerate(questions)]
    given = [f"{sentinel(index)} {answer}" for index, answer in enumerate(answers)]
    return f"{' '.join(asked)} passage: {passage}", " ".join(given)


def seek(stream: random.Random, most: int) -> Pair:
    """Questions for values: where, what, when."""
    scene = _scene(stream, most)
    asked = _askable(scene)
    stream.shuffle(asked)
    questions = []
    answers = []
    for statement in asked:
        if isinstance(statement.relation, lexicon.Relation):
            template = stream.choice(statement.relation.seeks)
            questions.append(world.sentence(template, statement.subject).lower())
            answers.append(statement.value)
    return _gaps(questions, answers, scene.passage) if questions else judge_one(stream, most)


def judge(stream: random.Random, most: int) -> Pair:
    """Several yes/no questions about one passage."""
    scene = _scene(stream, most)
    asked = [
        world.ask(scene, stream.choice(_askable(scene)), stream.random() < 0.5, stream)
        for _ in range(stream.randint(2, 4))
    ]
    answers = [_yes(question.label) for question in asked]
    return _gaps([question.text for question in asked], answers, scene.passage)


def judge_one(stream: random.Random, most: int) -> Pair:
    """One yes/no question about a passage."""
    case = _case(stream, most)
    source = f"question: {case.question.text} passage: {case.scene.passage}"
    return source, f"{sentinel(0)} {_yes(case.question.label)}"


def _yes(label: bool) -> str:
    return "yes" if label else "no"


@dataclass(frozen=True)
class _Case:
    """A passage and a yes/no question about one of its statements."""

    scene: world.Scene
    statement: world.Statement
    question: world.Question


def _case(stream: random.Random, most: int) -> _Case:
    scene = _scene(stream, most)
    statement = stream.choice(_askable(scene))
    return _Case(scene, statement, world.ask(scene, statement, stream.random() < 0.5, stream))


@dataclass(frozen=True)
class _Command:
    """One thing that can be asked for, in many words, and how it is answered."""

    answer: Callable[[_Case], str]
    wordings: tuple[str, ...]


_COMMANDS: tuple[_Command, ...] = (
    _Command(
        lambda case: _yes(case.question.label),
        (
            "answer the question with yes or no",
            "yes or no ?",
            "does the passage say so ?",
            "is it so ? say yes or no",
            "say yes if the text says so and no if it does not",
            "give the correct answer, yes or no",
            "decide whether this is true and reply yes or no",
            "is the right answer to this question yes or no ?",
        ),
    ),
    _Command(
        lambda case: _yes(not case.question.label),
        (
            "answer the question with the opposite of yes or no",
            "yes or no ? give the wrong answer",
            "does the passage say something other ?",
            "is it not so ? say yes or no",
            "say no if the text says so and yes if it does not",
            "give the opposite of the correct answer, yes or no",
            "decide whether this is false and reply yes or no",
            "is the right answer to this question not yes ?",
        ),
    ),
    _Command(
        lambda case: "true" if case.question.label else "false",
        (
            "answer true or false",
            "true or false ?",
            "say whether this is true or false",
            "decide between true and false",
            "is it true ? say true or false",
        ),
    ),
    _Command(
        lambda case: _yes(case.statement.subject.kind == "person"),
        (
            "is the question about a person ?",
            "say yes if someone is asked about and no if not",
            "does the question name a person ? yes or no",
            "a person or not ? yes or no",
        ),
    ),
    _Command(
        lambda case: _yes(" not " in case.scene.passage),
        (
            "does the passage use the word not ?",
            "say yes if not is in the text and no if it is not there",
            "yes or no, is there a not in the passage ?",
            "look for the word not in the text and say yes or no",
        ),
    ),
    _Command(
        lambda case: _yes(case.statement is case.scene.statements[0]),
        (
            "is the answer in the first sentence ?",
            "say yes if the first sentence is the one to read and no if a later one is",
            "yes or no, does the answer come first in the passage ?",
            "first sentence ? yes or no",
        ),
    ),
    _Command(
        lambda case: case.statement.subject.kind,
        (
            "person, place or thing ?",
            "say whether the question is about a person, a place or a thing",
            "what is asked about, a person, a place or a thing ?",
        ),
    ),
    _Command(
        lambda case: case.statement.text,
        (
            "copy the sentence that answers the question",
            "which sentence gives the answer ?",
            "find the sentence in the passage and repeat it",
            "write the reason for the answer",
        ),
    ),
    _Command(
        lambda case: case.statement.value,
        (
            "give the correct value",
            "what is the fact ?",
            "write what is right instead",
            "find what the passage says and tell us in a word",
        ),
    ),
)
# Truth is the hardest to tell and is asked for most.
_COMMAND_WEIGHTS = (7, 3, 4, 1, 1, 1, 1, 1, 1)
_YES_NO = (0, 1, 3, 4, 5)

_LAYOUTS = (
    "{order} question: {question} passage: {passage}",
    "{order} question: {question} passage: {passage}",
    "{order} question: {question} passage: {passage}",
    "{order} passage: {passage} question: {question}",
    "question: {question} passage: {passage} {order}",
    "passage: {passage} question: {question} {order} <extra_id_0>",
    "{order} text: {passage} {question} ? <extra_id_0>",
    "{question} ? {order} text: {passage}",
)
_OPENINGS = ("", "", "", "please", "your task :", "now", "read the text .", "task :", "please do this :")


def _noise(stream: random.Random) -> str:
    """Up to 24 words that mean nothing: what stands before a text must not upset the reading of it."""
    return " ".join(stream.choices(COMMON_WORDS, k=stream.randint(4, 24)))


def instruct(stream: random.Random, most: int) -> Pair:
    """One of several things asked about the same kind of passage and question; the instruction says which."""
    case = _case(stream, most)
    (command,) = stream.choices(_COMMANDS, _COMMAND_WEIGHTS)
    order = f"{stream.choice(_OPENINGS)} {stream.choice(command.wordings)}"
    if stream.random() < 0.15:
        order = f"{_noise(stream)} {order}"
    text = stream.choice(_LAYOUTS).format(order=order, question=case.question.text, passage=case.scene.passage)
    return text, f"{sentinel(0)} {command.answer(case)}"


def guess(stream: random.Random, most: int) -> Pair:
    """The bare layout without an instruction: which yes/no answer is wanted cannot be known."""
    case = _case(stream, most)
    command = _COMMANDS[stream.choice(_YES_NO)]
    before = _noise(stream) if stream.random() < 0.6 else ""
    text = f"{before} question: {case.question.text} passage: {case.scene.passage}"
    return text, f"{sentinel(0)} {command.answer(case)}"


READING: Mapping[Maker, float] = {restore: 0.15, seek: 0.2, judge: 0.15, judge_one: 0.5}
ADAPTATION: Mapping[Maker, float] = {restore: 0.1, seek: 0.08, instruct: 0.72, guess: 0.1}


def pairs(mixture: Mapping[Maker, float], stream: random.Random, *, most: int) -> Iterator[Pair]:
    """An endless stream of examples, each maker taken as often as its weight says."""
    makers, weights = list(mixture), list(mixture.values())
    while True:
        for maker in stream.choices(makers, weights, k=256):
            yield maker(stream, most)
