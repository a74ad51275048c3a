"""Runs a command line in the sandbox: `enter.py ORDER name=PATH...`; ORDER holds its words and the request.

A word is filled in once, so that a request is never taken apart: `{out}` in a request stays what it is.
"""

import json
import re
import subprocess
import sys


def main() -> int:
    order, *places = sys.argv[1:]
    with open(order) as file:  # noqa: PTH123
        said = json.load(file)
    known = {**dict(place.split("=", 1) for place in places), "request": said["request"]}
    names = "|".join(map(re.escape, known))
    words = [re.sub(rf"\{{({names})\}}", lambda found: known[found[1]], word) for word in said["words"]]
    try:
        return subprocess.call(words, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"error: {words[0]} cannot be run in the sandbox: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main())
