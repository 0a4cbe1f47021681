"""Several runs with one command: comparisons and sweeps."""
