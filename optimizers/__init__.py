"""What makes scripts (and prompts) better."""
