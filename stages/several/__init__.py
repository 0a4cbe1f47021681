"""Several runs: schedules against each other, and sweeps."""
