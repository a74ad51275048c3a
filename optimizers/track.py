"""What a search has tried so far: every program of one role, with its scores on the validation exercises."""

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from m3dspy.programs.role import Role


class Track:
    """Every program of a role that was scored on the validation exercises, so that the best outlives its search.

    Args: exercises: names of the validation exercises; other scores are not kept.
    """

    def __init__(self, exercises: Iterable[str]):
        self._exercises = set(exercises)
        self._states: dict[str, dict[str, Any]] = {}
        self._scores: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict) -> "Track":
        return self  # all copies of a program are on one track

    def enter(self, role: Role) -> str:
        """The name of a role's present prompts, for `score`."""
        state = role.dump_state()
        name = hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()
        with self._lock:
            self._states.setdefault(name, state)
        return name

    def score(self, program: str, exercise: str, score: float) -> None:
        """Note what a program scored on an exercise."""
        if exercise in self._exercises:
            with self._lock:
                self._scores[program][exercise] = score

    def best(self) -> dict[str, Any]:
        """The state of the program with the highest mean score of those that did every exercise; of equals the first,
        so that nothing is changed for nothing. Where none did, the first program."""
        whole = {name: sum(scores.values()) for name, scores in self._scores.items() if set(scores) == self._exercises}
        return self._states[max(whole, key=lambda name: whole[name]) if whole else next(iter(self._states))]
