"""The HTTP service that answers with prompts over a network."""
