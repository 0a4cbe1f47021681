"""The embedded backbone: weights, vocabulary, card and log in this folder; `pretraining` made them."""

from pathlib import Path

FOLDER = Path(__file__).parent
