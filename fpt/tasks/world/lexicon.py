"""What the generated world is made of: names, the properties things can have, and how English speaks of them.

Data only: what is drawn from it, and how, is decided in `scenes.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["person", "place", "thing"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAME_PARTS: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "person": (
        _words(
            "Mira Anton Lena Omar Ines Hugo Clara Tariq Nora Felix Yuki Pavel Rosa Jonas Amina Viktor Elsa Bruno "
            "Dalia Kofi Greta Samir Lucia Henrik Priya Marco Selma Igor Tessa Diego Hanna Rafael Zora Emil Paula "
            "Nils Farah Oscar Ida Leon Maya Stefan Alma Jakob Nadia Simon Vera Arne Leila Carlo Edith Boris"
        ),
        _words(
            "Tanaka Keller Osei Lindgren Moreau Haddad Novak Petrov Silva Bergman Costa Okafor Weber Rossi Dubois "
            "Jansen Kowalski Mendes Larsen Farouk Schmidt Vargas Holm Ivanov Nakata Popescu Rahman Sorensen Torres "
            "Ueda Vogel Wagner Yilmaz Zimmer Abadi Brandt Castro Dietrich Eriksen Fontana Garcia Horvath Ibarra "
            "Joshi Kimura Laurent Molina Nguyen Olsen Park Quint Ritter"
        ),
    ),
    "place": (
        _words("Port Mount Lake Fort Saint North South East West New Old Upper Lower Great Little Grand Castle Cape"),
        _words(
            "Linden Alder Marlow Hazel Corbin Thorne Ashby Verona Kestrel Dunmore Falcon Granby Harlow Ivory Juniper "
            "Kirby Laurel Merton Norwood Oakley Preston Quarry Raven Selby Tilden Upton Vale Weston Yarrow Zephyr "
            "Brook Cedar Dalton Elm Foxley Glen"
        ),
    ),
    "thing": (
        _words(
            "royal tiny broken antique giant hidden northern famous strange plain heavy noble rusty sacred simple "
            "southern secret second stolen wild"
        ),
        _words(
            "lamp clock bowl ring statue table mirror sword crown chair bell box mask vase drum flute carpet globe "
            "ladder lantern map mug pillow plate scarf shield spoon tray trunk wheel"
        ),
    ),
}
# People and places are named outright, things with an article.
CALLED: dict[Kind, str] = {"person": "{}", "place": "{}", "thing": "the {}"}


@dataclass(frozen=True)
class Relation:
    """One property of one kind of entity, and the ways English speaks of it.

    In the templates `{e}` is the entity, `{v}` the value that holds, `{w}` a value that does not. `groups` are what
    several values have in common and can be said in a value's place: who lives in Oslo lives in Europe. Where values
    have an order, `order` asks which of two entities comes first.
    """

    kind: Kind
    name: str
    values: tuple[str, ...]
    states: tuple[str, ...]
    contrasts: tuple[str, ...]
    denial: str
    asks: tuple[str, ...]
    seeks: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    order: str | None = None


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "person",
        "home",
        _words(
            "Oslo Lima Cairo Bergen Kyoto Porto Vienna Dublin Havana Lagos Madrid Naples Prague Quito Riga Sofia "
            "Tunis Warsaw Zagreb Athens Berlin Delhi Geneva Hanoi Jakarta Krakow London Milan Nairobi Ottawa"
        ),
        ("{e} lives in {v}.", "The home of {e} is in {v}."),
        ("{e} lives in {v} and not in {w}.", "{e} does not live in {w} but in {v}."),
        "{e} does not live in {w}.",
        ("does {e} live in {v}", "is the home of {e} in {v}"),
        ("where does {e} live", "where is the home of {e}"),
        {
            "Europe": _words(
                "Oslo Bergen Porto Vienna Dublin Madrid Naples Prague Riga Sofia Warsaw Zagreb Athens Berlin Geneva "
                "Krakow London Milan"
            ),
            "Africa": _words("Cairo Lagos Tunis Nairobi"),
            "Asia": _words("Kyoto Delhi Hanoi Jakarta"),
            "America": _words("Lima Havana Quito Ottawa"),
        },
    ),
    Relation(
        "person",
        "job",
        _words(
            "baker teacher doctor farmer sailor painter lawyer butcher carpenter dentist gardener hunter judge "
            "librarian mechanic nurse pilot plumber poet priest sculptor soldier surgeon tailor weaver writer chemist "
            "banker driver dancer"
        ),
        ("{e} works as a {v}.", "The job of {e} is that of a {v}."),
        ("{e} works as a {v} and not as a {w}.", "{e} does not work as a {w} but as a {v}."),
        "{e} does not work as a {w}.",
        ("does {e} work as a {v}", "is {e} a {v}"),
        ("what does {e} work as", "what is the job of {e}"),
    ),
    Relation(
        "person",
        "instrument",
        _words("violin piano guitar cello trumpet harp banjo clarinet organ trombone accordion mandolin tuba viola"),
        ("{e} plays the {v}.", "The instrument of {e} is the {v}."),
        ("{e} plays the {v} and not the {w}.", "{e} does not play the {w} but the {v}."),
        "{e} does not play the {w}.",
        ("does {e} play the {v}", "is the {v} the instrument of {e}"),
        ("what does {e} play", "what is the instrument of {e}"),
    ),
    Relation(
        "person",
        "food",
        _words(
            "rice soup bread cheese fish honey apples beans carrots cherries grapes lentils mushrooms noodles olives "
            "onions pancakes peaches pears plums potatoes salad tomatoes walnuts"
        ),
        ("{e} likes {v}.", "The favourite food of {e} is {v}."),
        ("{e} likes {v} and not {w}.", "{e} does not like {w} but {v}."),
        "{e} does not like {w}.",
        ("does {e} like {v}", "is {v} the favourite food of {e}"),
        ("what does {e} like", "what is the favourite food of {e}"),
        {
            "fruit": _words("apples cherries grapes peaches pears plums"),
            "vegetables": _words("beans carrots lentils mushrooms onions potatoes salad tomatoes"),
        },
    ),
    Relation(
        "person",
        "language",
        _words(
            "Arabic Bengali Czech Danish Dutch English Finnish French German Greek Hindi Hungarian Italian Japanese "
            "Korean Latin Polish Russian Spanish Swedish Turkish"
        ),
        ("{e} speaks {v}.", "The language of {e} is {v}."),
        ("{e} speaks {v} and not {w}.", "{e} does not speak {w} but {v}."),
        "{e} does not speak {w}.",
        ("does {e} speak {v}", "is {v} the language of {e}"),
        ("what does {e} speak", "what is the language of {e}"),
    ),
    Relation(
        "person",
        "pet",
        _words("cat dog horse parrot rabbit goat hamster turtle donkey duck pigeon snake pony sheep lizard"),
        ("{e} has a {v}.", "The pet of {e} is a {v}."),
        ("{e} has a {v} and not a {w}.", "{e} does not have a {w} but a {v}."),
        "{e} does not have a {w}.",
        ("does {e} have a {v}", "is the pet of {e} a {v}"),
        ("what does {e} have", "what is the pet of {e}"),
        {
            "bird": _words("parrot duck pigeon"),
            "reptile": _words("turtle snake lizard"),
            "mammal": _words("cat dog horse rabbit goat hamster donkey pony sheep"),
        },
    ),
    Relation(
        "person",
        "arrival",
        _words("January February March April May June July August September October November December"),
        ("{e} arrived in {v}.", "The arrival of {e} was in {v}."),
        ("{e} arrived in {v} and not in {w}.", "{e} did not arrive in {w} but in {v}."),
        "{e} did not arrive in {w}.",
        ("did {e} arrive in {v}", "was the arrival of {e} in {v}"),
        ("when did {e} arrive", "when was the arrival of {e}"),
        order="did {e} arrive {v} {w}",
    ),
    Relation(
        "place",
        "country",
        _words(
            "Norway Peru Egypt Japan Portugal Austria Ireland Cuba Nigeria Spain Italy Chile Latvia Bulgaria Tunisia "
            "Poland Croatia Greece Germany India Vietnam Kenya Canada Brazil"
        ),
        ("{e} lies in {v}.", "{e} is a town in {v}."),
        ("{e} lies in {v} and not in {w}.", "{e} does not lie in {w} but in {v}."),
        "{e} does not lie in {w}.",
        ("does {e} lie in {v}", "is {e} a town in {v}"),
        ("where does {e} lie", "in which country is {e}"),
        {
            "Europe": _words(
                "Norway Portugal Austria Ireland Spain Italy Latvia Bulgaria Poland Croatia Greece Germany"
            ),
            "Africa": _words("Egypt Nigeria Tunisia Kenya"),
            "Asia": _words("Japan India Vietnam"),
            "America": _words("Peru Cuba Chile Canada Brazil"),
        },
    ),
    Relation(
        "place",
        "product",
        _words("salt wine glass paper silk tea sugar coffee butter tobacco pottery leather cotton steel soap candles"),
        ("{e} is known for {v}.", "The people of {e} make {v}."),
        ("{e} is known for {v} and not for {w}.", "{e} is not known for {w} but for {v}."),
        "{e} is not known for {w}.",
        ("is {e} known for {v}", "do the people of {e} make {v}"),
        ("what is {e} known for", "what do the people of {e} make"),
    ),
    Relation(
        "place",
        "founding",
        tuple(str(year) for year in range(1205, 1500, 10)),
        ("{e} was founded in {v}.", "The founding year of {e} is {v}."),
        ("{e} was founded in {v} and not in {w}.", "{e} was not founded in {w} but in {v}."),
        "{e} was not founded in {w}.",
        ("was {e} founded in {v}", "is the founding year of {e} {v}"),
        ("when was {e} founded", "what is the founding year of {e}"),
        order="was {e} founded {v} {w}",
    ),
    Relation(
        "place",
        "emblem",
        _words("lion wolf bear fox whale tiger stag swan crane beaver dolphin raven boar hawk lynx seal"),
        ("{e} has a {v} on its flag.", "The flag of {e} shows a {v}."),
        ("{e} has a {v} on its flag and not a {w}.", "The flag of {e} shows not a {w} but a {v}."),
        "The flag of {e} does not show a {w}.",
        ("does the flag of {e} show a {v}", "does {e} have a {v} on its flag"),
        ("what does the flag of {e} show", "what does {e} have on its flag"),
        {
            "bird": _words("swan crane raven hawk"),
            "mammal": _words("lion wolf bear fox whale tiger stag beaver dolphin boar lynx seal"),
        },
    ),
    Relation(
        "thing",
        "colour",
        _words("red blue green yellow black white brown purple pink grey violet crimson beige turquoise"),
        ("{E} is {v}.", "The colour of {e} is {v}."),
        ("{E} is {v} and not {w}.", "{E} is not {w} but {v}."),
        "{E} is not {w}.",
        ("is {e} {v}", "is {v} the colour of {e}"),
        ("what is the colour of {e}", "what colour is {e}"),
    ),
    Relation(
        "thing",
        "material",
        _words("wood stone iron silver gold bronze copper marble clay brass bone wax cork tin plastic wool"),
        ("{E} is made of {v}.", "The material of {e} is {v}."),
        ("{E} is made of {v} and not of {w}.", "{E} is not made of {w} but of {v}."),
        "{E} is not made of {w}.",
        ("is {e} made of {v}", "is {v} the material of {e}"),
        ("what is {e} made of", "what is the material of {e}"),
    ),
    Relation(
        "thing",
        "price",
        _words(
            "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen twenty "
            "thirty forty fifty sixty"
        ),
        ("{E} costs {v} coins.", "The price of {e} is {v} coins."),
        ("{E} costs {v} and not {w} coins.", "{E} does not cost {w} but {v} coins."),
        "{E} does not cost {w} coins.",
        ("does {e} cost {v} coins", "is the price of {e} {v} coins"),
        ("what does {e} cost", "what is the price of {e}"),
    ),
    Relation(
        "thing",
        "room",
        _words("kitchen cellar attic garden library chapel garage stable tower museum office school shop barn mill"),
        ("{E} is in the {v}.", "The {v} holds {e}."),
        ("{E} is in the {v} and not in the {w}.", "{E} is not in the {w} but in the {v}."),
        "{E} is not in the {w}.",
        ("is {e} in the {v}", "does the {v} hold {e}"),
        ("where is {e}", "in which room is {e}"),
    ),
)


@dataclass(frozen=True)
class Scale:
    """Something two entities of a kind are compared by: the comparison and its opposite, a statement and a question.

    In the templates `{e}` and `{w}` are the two entities, `{v}` is `more` or `less`.
    """

    kind: Kind
    more: str
    less: str
    state: str = "{e} is {v} than {w}."
    ask: str = "is {e} {v} than {w}"


SCALES: tuple[Scale, ...] = (
    Scale("person", "taller", "shorter"),
    Scale("person", "older", "younger"),
    Scale("person", "before", "after", "{e} left {v} {w}.", "did {e} leave {v} {w}"),
    Scale("place", "larger", "smaller"),
    Scale("place", "colder", "warmer"),
    Scale("place", "richer", "poorer"),
    Scale("thing", "heavier", "lighter"),
    Scale("thing", "longer", "shorter"),
    Scale("thing", "newer", "older"),
)

BEFORE, AFTER = "before", "after"  # what an ordered relation is asked with


@dataclass(frozen=True)
class Summary:
    """Two relations of a kind that are told together in one sentence, in the words of a summary or in others."""

    kind: Kind
    relations: tuple[str, str]
    text: str
    others: tuple[str, ...]


SUMMARIES: tuple[Summary, ...] = (
    Summary(
        "person",
        ("job", "home"),
        "{e} is a {v} from {w}.",
        ("{w} is the home of {e}, a {v}.", "The {v} {e} lives in {w}."),
    ),
    Summary(
        "place",
        ("product", "country"),
        "{e} makes {v} in {w}.",
        ("The {v} of {e} comes from {w}.", "In {w}, {e} is known for {v}."),
    ),
    Summary(
        "thing",
        ("material", "room"),
        "{E} of {v} is in the {w}.",
        ("The {w} holds {e} of {v}.", "Made of {v}, {e} is in the {w}."),
    ),
)


def words() -> Iterator[str]:
    """Every word that a name or a value can hold: what a vocabulary should know whole."""
    for firsts, lasts in NAME_PARTS.values():
        yield from firsts
        yield from lasts
    for relation in RELATIONS:
        yield from relation.values
        yield from relation.groups
