"""The generated world: data for first runs and tests, without a network."""
