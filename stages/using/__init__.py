"""What is done with a learned prompt: score, answer, export."""
