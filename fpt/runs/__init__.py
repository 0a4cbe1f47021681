"""A run on disk: writing and reading its folder, and showing its progress."""
