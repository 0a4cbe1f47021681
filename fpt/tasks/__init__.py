"""Records to text to score: what the prompt is trained for."""
