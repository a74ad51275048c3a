"""Stop itself: a stopped process takes no SIGTERM."""

import os
import signal

print("stopping", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
