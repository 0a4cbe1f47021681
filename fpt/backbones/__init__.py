"""Frozen models: where their files are, how their parts are found, and how they are run."""
