"""The embedded backbone: weights, vocabulary, card and log in this folder, and the recipe that made them."""

from pathlib import Path

FOLDER = Path(__file__).parent
