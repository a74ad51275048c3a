"""dspy.Modules, one a role: ask, check, act, repair."""
