"""What `rules` knows, one file a role: from the typed inputs of a signature to its outputs."""
