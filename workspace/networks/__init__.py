"""Networks, one a file. Each is a training script's `network.py`, copied word for word: it imports nothing of ours."""
