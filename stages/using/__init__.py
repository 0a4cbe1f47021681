"""Uses a learned prompt: scores it, answers texts with it, exports it."""
