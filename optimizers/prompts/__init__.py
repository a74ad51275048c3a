"""Optimizers of prompts, one a file: `expected` says what a search will cost, `search` does it."""
