"""Which models, in which order, and how the prompt gets from one to the next."""
