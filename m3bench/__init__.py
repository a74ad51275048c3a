"""The examiner: knows tasks, not candidates."""
