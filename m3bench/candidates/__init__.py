"""Candidates that everybody knows, one file each: bounds, and cheats that must not pay.

    dummy    the trivial answer: well formed, and worth nothing        blind   guesses without a look at the images
    oracle   the answers themselves                                    cheater looks for the answers in its sandbox

A file offers `candidate(given: Assignment) -> Submission`. `command.py` runs anybody's command line. Our own job is a
candidate too, and so are two ways to break it: see m3dspy.job and m3dspy.broken.
"""

from m3dspy.registry import Registry

CANDIDATES = Registry("candidate", "m3dspy.m3bench.candidates")
