"""Measures what parts of a model are worth before anything is trained on them."""
