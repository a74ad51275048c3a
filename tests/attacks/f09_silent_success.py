"""Do nothing at all, and end with status 0."""
