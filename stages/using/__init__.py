"""Uses of a learned prompt: to score it, have it answer, export it."""
