"""The report: one self-contained page about several runs."""
