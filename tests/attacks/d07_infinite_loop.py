"""Burn CPU for ever, silently."""

while True:
    pass
