"""A tokenizer's chat template, as the texts that it puts around a source and its answer."""

from dataclasses import dataclass

from fpt.backbones.backbone import Backbone
from fpt.errors import UserError, reason

SOURCE, ANSWER = "<<source>>", "<<answer>>"  # stand in for both in the template


@dataclass(frozen=True)
class Chat:
    """A user's message and the assistant's, as one text; whatever precedes them, such as a system message, included.

    Attributes:
        before: the text before a source.
        between: the text behind a source, up to where the assistant's answer is asked for.
        gap: what the template puts before an answer, as a space.
        end: the token that closes an answer.
    """

    before: str
    between: str
    gap: str
    end: int


def chat_of(backbone: Backbone) -> Chat:
    """The model's own chat template; an error if it has none, or one that does not end in an answer."""
    tokenizer, where = backbone.tokenizer, f"task.chat=true: {backbone.folder}"
    if not tokenizer.chat_template:
        raise UserError(f"{where}: its tokenizer has no chat template; leave task.chat out, or take an instruct model")
    asking = [{"role": "user", "content": SOURCE}]
    told = [*asking, {"role": "assistant", "content": ANSWER}]
    try:
        asked = str(tokenizer.apply_chat_template(asking, tokenize=False, add_generation_prompt=True))
        whole = str(tokenizer.apply_chat_template(told, tokenize=False))
    except Exception as error:  # a template is a program, with errors of its own
        raise UserError(f"{where}: its chat template fails ({reason(error)}); leave task.chat out") from None
    before, _, between = asked.partition(SOURCE)
    gap, _, rest = whole.removeprefix(asked).partition(ANSWER)
    ends = tokenizer(rest, add_special_tokens=False)["input_ids"][:1]
    if not between or not whole.startswith(asked) or not ends:
        raise UserError(f"{where}: its chat template does not go on as it asks for an answer; leave task.chat out")
    if ends[0] not in backbone.ends:
        name = tokenizer.convert_ids_to_tokens(ends[0])
        raise UserError(
            f"{where}: its chat template ends an answer with {name}, which is no eos_token_id of config.json or"
            f" generation_config.json; add {ends[0]} there"
        )
    return Chat(before, between, gap, ends[0])
