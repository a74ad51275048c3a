"""Python read as text by one thread at a time, and once more where that is not enough.

In CPython 3.11 two threads in `ast.parse` spoil each other's count of recursion, and one ends in a SystemError
(python/cpython#106905). Those of ours wait for each other; a library's may still be in the way.
"""

import ast
import threading
from contextlib import suppress
from typing import Any

_alone = threading.Lock()
_TRIES = 5


def parse(source: str) -> ast.Module:
    """The syntax tree of a script.

    Raises: SyntaxError.
    """
    with _alone:
        for _ in range(_TRIES):
            with suppress(SystemError):
                return ast.parse(source)
        return ast.parse(source)


def literal(source: str) -> Any:
    """The value that is written there.

    Raises: SyntaxError, ValueError: it is no literal.
    """
    return ast.literal_eval(parse(source.strip()).body[0].value)  # pyright: ignore
