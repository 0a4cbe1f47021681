"""What a part of a model is still worth, before anything is trained on it."""
