"""Print for ever, as fast as possible, in one endless line and in many."""

import os

b = b"spam " * 13107 + b"\n"
while True:
    os.write(1, b)
    os.write(2, b"A" * 65536)
