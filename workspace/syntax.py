"""Python read as text by one thread at a time: in CPython 3.11 two threads in `ast.parse` spoil each other's count of
recursion and end in a SystemError (python/cpython#106905)."""

import ast
import threading

_alone = threading.Lock()


def parse(source: str) -> ast.Module:
    """The syntax tree of a script.

    Raises: SyntaxError.
    """
    with _alone:
        return ast.parse(source)
