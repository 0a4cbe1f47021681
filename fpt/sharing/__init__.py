"""Exports of prompts for others: formats, model cards, uploads to the Hub."""
