"""What is asked of a language model, and the values that travel between stages."""
