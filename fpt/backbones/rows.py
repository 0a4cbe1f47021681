"""The table of model families: paths of a model's parts, config.json keys of its sizes, and its way to read.

Paths are dotted: of modules in a model, or of keys in a config.json. Imports nothing heavy.

Letters: D model, F FFN neurons of a block.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from fpt.backbones.reading import CAUSAL, MASK, SEQ2SEQ, SPANS, Reading


@dataclass(frozen=True)
class Ffn:
    """A block's feed-forward network.

    Attributes:
        module: its path in a block.
        into: its possible layers from D to F; a block has one of them, or two if it is gated.
        out: its layer from F back to D.
        transposed: whether weights are [inputs, outputs], as in GPT-2.
    """

    module: str
    into: tuple[str, ...]
    out: str
    transposed: bool = False


@dataclass(frozen=True)
class StackRow:
    """A stack of blocks.

    Attributes:
        module: the path of the module whose forward takes token ids or embeddings, and a padding mask.
        blocks: the path of its blocks, below `module`.
        norm: the path of the norm after the last block, below `module`; None: it has none.
        ffn: the FFN of its blocks.
        width: the key of D.
        num_blocks: the key of its number of blocks.
        num_neurons: the key of F.
        config: the path of its part of the configuration; "": the whole configuration.
        otherwise: for keys that may be missing, the key to use instead, and a factor.
    """

    module: str
    blocks: str
    norm: str | None
    ffn: Ffn
    width: str = "hidden_size"
    num_blocks: str = "num_hidden_layers"
    num_neurons: str = "intermediate_size"
    config: str = ""
    otherwise: dict[str, tuple[str, int]] = field(default_factory=dict)

    def key(self, name: str) -> str:
        """The full path of a key in the stack's part of the configuration."""
        return f"{self.config}.{name}".lstrip(".")


@dataclass(frozen=True)
class Row:
    """A family of models.

    Attributes:
        reads: how its models read an example and answer it.
        stacks: its stacks by name, in the order in which hidden states pass through them; a prompt enters the first.
        num_heads: the key of the first stack's number of attention heads, in its part of the configuration.
        vocabulary: the key of the number of tokens, likewise.
        embedding: the names that the token embedding may be saved under.
        saved: prefixes of tensor names, each with another prefix that checkpoints may have instead.
        embedding_scale: whether token embeddings are multiplied by √D before the first block.
        head: the modules that turn the last stack's output into logits, applied in this order.
        start: the key of the token that a target begins with.
        shares_width: whether config.json has one F for all stacks, the largest of theirs.
        unread: modules that text does not pass through, such as a vision tower; their weights stay on disk.
        positions: for learned position embeddings, the key of their number, and how many are reserved; None: positions
            are computed in the blocks.
        asks_card: whether a pass reads something back from the GPU, so that it cannot be a CUDA graph.
        no_peft: why PEFT's prompt tuning would differ from fpt's; "": it does not.
        refused: for some keys, a value with which a model is refused, and the reason.
        transformers: the first release whose model of this family is correct; "": every release that fpt allows.
    """

    reads: Reading
    stacks: dict[str, StackRow]
    embedding: tuple[str, ...]
    num_heads: str = "num_attention_heads"
    vocabulary: str = "vocab_size"
    saved: tuple[tuple[str, str], ...] = ()
    embedding_scale: bool = False
    head: tuple[str, ...] = ("lm_head",)
    start: str = "decoder_start_token_id"
    shares_width: bool = False
    unread: tuple[str, ...] = ()
    positions: tuple[str, int] | None = None
    asks_card: bool = False
    no_peft: str = ""
    refused: dict[str, tuple[Any, str]] = field(default_factory=dict)
    transformers: str = ""

    @property
    def first(self) -> StackRow:
        """The stack that reads the source, which a prompt enters."""
        return next(iter(self.stacks.values()))

    @property
    def last(self) -> StackRow:
        """The stack before the head."""
        return list(self.stacks.values())[-1]


def _t5_stack(name: str, blocks: str, ffn: int, **more: Any) -> StackRow:
    network = Ffn(f"layer.{ffn}.DenseReluDense", ("wi", "wi_0", "wi_1"), "wo")
    return StackRow(name, "block", "final_layer_norm", network, "d_model", blocks, "d_ff", **more)


T5 = Row(
    reads=SPANS,
    stacks={
        "encoder": _t5_stack("encoder", "num_layers", 1),
        "decoder": _t5_stack("decoder", "num_decoder_layers", 2, otherwise={"num_decoder_layers": ("num_layers", 1)}),
    },
    num_heads="num_heads",
    embedding=("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
    shares_width=True,
)

UMT5 = replace(
    T5,
    no_peft="the library under PEFT scales what a UMT5's head reads, as if it were tied",
    transformers="5.18",  # before it, a decoder without padding sees the tokens that it is to predict
)
GATED = Ffn("mlp", ("gate_proj", "up_proj"), "down_proj")
T5GEMMA = Row(
    reads=SEQ2SEQ,
    stacks={name: StackRow(f"model.{name}", "layers", "norm", GATED, config=name) for name in ("encoder", "decoder")},
    embedding=("model.encoder.embed_tokens.weight",),
    embedding_scale=True,
    head=("lm_head.out_proj",),
    start="decoder.bos_token_id",
    no_peft="PEFT would have the prompt scaled as embeddings are",
)
T5GEMMA2 = Row(
    reads=SEQ2SEQ,
    stacks={
        "encoder": StackRow("model.encoder.text_model", "layers", "norm", GATED, config="encoder.text_config"),
        "decoder": StackRow("model.decoder", "layers", "norm", GATED, config="decoder"),
    },
    embedding=("model.encoder.text_model.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
    embedding_scale=True,
    head=("lm_head.out_proj",),
    start="decoder.bos_token_id",
    saved=(("model.encoder.text_model.", "model.encoder."),),
    asks_card=True,
    no_peft="PEFT does not know such a model's parts",
    unread=("model.encoder.vision_tower", "model.encoder.multi_modal_projector"),
)
GPT2 = Row(
    reads=CAUSAL,
    stacks={
        "decoder": StackRow(
            "transformer",
            "h",
            "ln_f",
            Ffn("mlp", ("c_fc",), "c_proj", transposed=True),
            width="n_embd",
            num_blocks="n_layer",
            num_neurons="n_inner",
            otherwise={"n_inner": ("n_embd", 4)},
        )
    },
    num_heads="n_head",
    embedding=("transformer.wte.weight",),
    saved=(("transformer.", ""),),
    positions=("n_positions", 0),
    no_peft="PEFT puts a prompt before positions are added, fpt behind that, as is published",
    refused={"scale_attn_by_inverse_layer_idx": (True, "its blocks depend on how many lie below them")},
)
LLAMA = Row(
    reads=CAUSAL,
    stacks={"decoder": StackRow("model", "layers", "norm", GATED)},
    embedding=("model.embed_tokens.weight",),
    saved=(("model.", ""),),
)
GEMMA = replace(LLAMA, embedding_scale=True)
BERT = Row(
    reads=MASK,
    stacks={"encoder": StackRow("bert", "encoder.layer", None, Ffn("", ("intermediate.dense",), "output.dense"))},
    embedding=("bert.embeddings.word_embeddings.weight",),
    head=("cls",),
    saved=(("bert.", ""),),
    positions=("max_position_embeddings", 0),
    no_peft="PEFT has no prompts for models that fill in a mask",
    refused={"is_decoder": (True, "it is to read to both sides")},
)
ROBERTA = replace(
    BERT,
    stacks={"encoder": replace(BERT.first, module="roberta")},
    embedding=("roberta.embeddings.word_embeddings.weight",),
    head=("lm_head",),
    positions=("max_position_embeddings", 2),
    saved=(("roberta.", ""),),
)
ROWS = {  # by model_type; T5 1.0, 1.1, LM-adapted, Flan, UL2 and ByT5 are all t5
    "t5": T5,
    "mt5": T5,
    "umt5": UMT5,
    "t5gemma": T5GEMMA,
    "t5gemma2": T5GEMMA2,
    "gpt2": GPT2,
    "llama": LLAMA,
    "qwen3": LLAMA,
    "gemma3_text": GEMMA,
    "bert": BERT,
    "roberta": ROBERTA,
}
SUPPORTED = (
    "T5 (1.0, 1.1, LM-adapted, Flan, UL2, ByT5), mT5, UMT5, T5Gemma, T5Gemma 2, GPT-2, Llama, Qwen 3, Gemma 3 (text),"
    " BERT and RoBERTa"
)
REFUSED = {
    "longt5": "LongT5 has another attention",
    "switch_transformers": "Switch Transformers has experts in place of FFN neurons",
    "modernbert": "ModernBERT's first block is unlike the others, so that no part can begin with one of these",
    "gemma3": "Gemma 3 with images is not supported; a checkpoint of model_type gemma3_text is",
}


def value_at(values: Any, path: str) -> Any:
    """The value at a dotted path in a configuration or in a config.json's values; None: there is none."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else getattr(values, key, None)
    return values
