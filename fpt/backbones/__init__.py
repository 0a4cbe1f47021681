"""Frozen models: where their files are, what they are made of, and how they are read."""
