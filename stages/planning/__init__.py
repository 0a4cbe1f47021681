"""Plans a run once, before its first update: what it costs, and how it fits into memory."""
