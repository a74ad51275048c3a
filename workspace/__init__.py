"""From a plan to a finished model: look, index, emit, execute. No language model in here."""
