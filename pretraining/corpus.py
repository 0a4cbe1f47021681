"""What the embedded backbone reads in pre-training: texts about the generated world, with something missing.

Everything is told about entities of the split `pretraining` only. An example is a pair of texts, source and target, in
T5's own notation: sentinels stand for what is asked for and open each answer. A maker draws one example from a random
stream, with at most so many statements in its passage. Instructions are in `instructions.py`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from pretraining.world import lexicon, scenes
from pretraining.world import records as world
from pretraining.world.scenes import Inference, Scene

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
yesterday yet you young your zero not_duplicate is_duplicate question1 question2 query entities
@placeholder begin begins contradict else round count counts custom customs class rule rules sort those makes
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
            relation.order or "",
        )
    ]
    templates += [f"{scale.state} {' '.join(scale.asks)} {scale.more} {scale.less}" for scale in lexicon.SCALES]
    templates += [text for summary in lexicon.SUMMARIES for text in (summary.text, *summary.others)]
    of_templates = {word for text in templates for word in re.findall(r"\w+", re.sub(r"{.}", " ", text))}
    of_names = [word for parts in lexicon.NAME_PARTS.values() for part in parts for word in part]
    of_values = [word for relation in lexicon.RELATIONS for word in (*relation.values, *relation.groups)]
    return sorted({word.lower() for word in (*COMMON_WORDS, *of_names, *of_values, *of_templates, *lexicon.CLASSES)})


def names_in(text: str) -> frozenset[str]:
    """Every entity's name in a text, in lower case."""
    return frozenset(match.lower() for match in _NAME.findall(text))


def _any_name(kind: lexicon.Kind) -> str:
    first, last = (f"(?:{'|'.join(parts)})" for parts in lexicon.NAME_PARTS[kind])
    return lexicon.CALLED[kind].format(f"{first} {last}")


_NAME = re.compile(rf"\b(?:{'|'.join(map(_any_name, scenes.KINDS))})\b", re.IGNORECASE)


def sentinel(index: int) -> str:
    """T5's mark for the `index`-th missing piece."""
    return f"<extra_id_{index}>"


def draw_scene(stream: random.Random, most: int, *, num_entities: int = 2, namesakes: bool = False) -> Scene:
    """A scene of the pre-training split with at most so many statements."""
    num_statements = stream.randint(1 + most // 4, most)
    return scenes.scene(
        "pretraining", stream, num_statements=num_statements, num_entities=num_entities, namesakes=namesakes
    )


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
    scene = draw_scene(stream, min(most, 3))
    sentences = [statement.text for statement in scene.statements]
    sentences += [scenes.retold(statement, stream) for statement in scene.statements]
    stream.shuffle(sentences)
    return _corrupt(" ".join(sentences).replace(".", " .").split(), stream, 0.25)


def _gaps(opening: str, asked: Sequence[str], answers: Sequence[str], rest: str) -> Pair:
    """Several things asked about one passage, a sentinel after each where its answer belongs."""
    questions = [f"{opening}: {text} {sentinel(index)}" for index, text in enumerate(asked)]
    target = [f"{sentinel(index)} {answer}" for index, answer in enumerate(answers)]
    return f"{' '.join(questions)} {rest}".strip(), " ".join(target)


def _how_many(stream: random.Random) -> int:
    """Mostly one question, which is what tasks ask; several tell more per example, once one can be answered."""
    return stream.choice((1, 1, 1, 2, 3))


def seek(stream: random.Random, most: int) -> Pair:
    """Questions for values, where, what, when; some have no answer."""
    scene = draw_scene(stream, most, num_entities=stream.choice((2, 3)), namesakes=True)
    asked = [
        (scenes.seek(statement, stream), statement.value)
        for statement in scene.askable
        if isinstance(statement.relation, lexicon.Relation)
    ]
    if not asked or stream.random() < 0.5:
        asked.append((scenes.sought(*scenes.untold(scene, stream), stream), "no answer"))
    stream.shuffle(asked)
    return _gaps("question", [text for text, _ in asked], [answer for _, answer in asked], f"context: {scene.passage}")


def judge(stream: random.Random, most: int) -> Pair:
    """Yes/no questions about one passage."""
    scene = draw_scene(stream, most)
    labels = [stream.random() < 0.5 for _ in range(_how_many(stream))]
    asked = [scenes.ask(scene, stream.choice(scene.askable), label, stream) for label in labels]
    return _gaps("question", asked, [yes(label) for label in labels], f"passage: {scene.passage}")


def infer(stream: random.Random, most: int) -> Pair:
    """Sentences that follow from a passage (yes), contradict it (no) or are left open by it (maybe)."""
    scene = draw_scene(stream, most)
    labels: list[Inference] = [stream.choice(world.INFERENCES) for _ in range(_how_many(stream))]
    hypotheses = [scenes.hypothesis(scene, label, stream) for label in labels]
    verdicts = {"entailment": "yes", "neutral": "maybe", "contradiction": "no"}
    return _gaps("hypothesis", hypotheses, [verdicts[label] for label in labels], f"premise: {scene.passage}")


def match(stream: random.Random, _most: int) -> Pair:
    """Pairs of questions: do they ask the same?"""
    labels = [stream.random() < 0.5 for _ in range(_how_many(stream))]
    asked = [scenes.question_pair("pretraining", label, stream) for label in labels]
    texts = [f"{first} question2: {second}" for first, second in asked]
    return _gaps("question1", texts, [yes(label) for label in labels], "")


def fill(stream: random.Random, most: int) -> Pair:
    """Statements of a passage in other words, a sentinel in the place of whom they are about."""
    scene = draw_scene(stream, most, num_entities=stream.choice((2, 3)), namesakes=True)
    asked = [scenes.with_gap(statement, stream) for statement in scene.askable]
    names = [scenes.bare(statement.subject) for statement in scene.askable]
    texts = [text.replace("@placeholder", sentinel(index)) for index, text in enumerate(asked)]
    target = [f"{sentinel(index)} {name}" for index, name in enumerate(names)]
    return f"query: {' '.join(texts)} passage: {scene.passage}", " ".join(target)


def condense(stream: random.Random, _most: int) -> Pair:
    """A document, and a sentence that joins two of its facts."""
    document = scenes.document("pretraining", stream)
    summary = scenes.SUMMARY_OF[document.subject.kind]
    template = stream.choice((summary.text, *summary.others))
    return f"summary: {sentinel(0)} document: {document.text}", f"{sentinel(0)} {document.summary(template)}"


def yes(label: bool) -> str:
    """The answer to a yes/no question."""
    return "yes" if label else "no"


READING: Mapping[Maker, float] = {
    restore: 0.12,
    seek: 0.15,
    judge: 0.4,
    infer: 0.15,
    match: 0.05,
    fill: 0.1,
    condense: 0.03,
}


def pairs(mixture: Mapping[Maker, float], stream: random.Random, *, most: int) -> Iterator[Pair]:
    """An endless stream of examples, each maker taken as often as its weight says."""
    makers, weights = list(mixture), list(mixture.values())
    while True:
        for maker in stream.choices(makers, weights, k=256):
            yield maker(stream, most)
