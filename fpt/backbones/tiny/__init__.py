"""Where is the embedded backbone? In this folder: weights, vocabulary, card, log, and the recipe that made them."""

from pathlib import Path

FOLDER = Path(__file__).parent
