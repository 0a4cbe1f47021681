"""Trains a prompt, evaluates it, and answers with it."""
