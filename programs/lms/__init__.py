"""The LM layer: names, preflight, ledger and budgets; and `rules`, the built-in offline core."""
