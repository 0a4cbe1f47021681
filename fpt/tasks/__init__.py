"""Tasks: records become text, and the model's outputs become answers and scores."""
