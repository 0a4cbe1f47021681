"""Prices models without building them: parameters, FLOPs, and memory."""
