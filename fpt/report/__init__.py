"""The report: one self-contained page about several runs, and its plots as PNG files in a folder beside it."""
