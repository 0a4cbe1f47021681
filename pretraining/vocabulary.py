"""How the embedded backbone cuts text into pieces: by sentencepiece, each of the world's words in one piece.

Sentencepiece's unigram model is trained on the list of words, for anything the world does not say; then every word
of the list becomes a piece of its own. Text is folded to lower case. As in T5, padding is 0, end of text 1, unknown 2,
and 100 sentinels follow after the last piece, the first sentinel last.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

NUM_SENTINELS = 100
END = 1
_FRAGMENTS = 400
# Log-probabilities: a word that is a piece always costs less than two pieces.
_WORD_SCORE = -8.0
_FRAGMENT_PENALTY = 16.0


def train(words: Sequence[str], folder: Path) -> None:
    """Write `spiece.model` and `tokenizer_config.json` into a folder."""
    trained = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_writer=trained,
        model_type="unigram",
        vocab_size=_FRAGMENTS,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=END,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc_cf",
        required_chars=string.ascii_lowercase + string.digits + string.punctuation,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(_with_whole_words(trained.getvalue(), words))
    settings = {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": NUM_SENTINELS,
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 512,
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _with_whole_words(serialized: bytes, words: Sequence[str]) -> bytes:
    # Generated at import: a type checker sees nothing in this module.
    proto: Any = sentencepiece_model_pb2
    model = proto.ModelProto()
    model.ParseFromString(serialized)
    known = {piece.piece: piece for piece in model.pieces}
    for piece in model.pieces:
        if piece.type == proto.ModelProto.SentencePiece.NORMAL:
            piece.score -= _FRAGMENT_PENALTY
    for word in words:
        whole = f"\u2581{word}"
        if whole in known:
            known[whole].score = _WORD_SCORE
        else:
            model.pieces.add(piece=whole, score=_WORD_SCORE)
    model.trainer_spec.vocab_size = len(model.pieces)
    return bytes(model.SerializeToString())


class Codec:
    """Text to token numbers, equal to the folder's tokenizer but remembering every word it has met."""

    def __init__(self, folder: Path) -> None:
        self._model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
        self.size: int = self._model.vocab_size() + NUM_SENTINELS
        self.first_sentinel = self.size - NUM_SENTINELS
        self._known: dict[str, list[int]] = {
            f"<extra_id_{index}>": [self.size - 1 - index] for index in range(NUM_SENTINELS)
        }

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text, the end mark included."""
        ids: list[int] = []
        for word in text.split():
            if word not in self._known:
                self._known[word] = self._model.encode(word)
            ids += self._known[word]
        ids.append(END)
        return ids
