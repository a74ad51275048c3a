"""Simulated language models for tests: see README.md."""
