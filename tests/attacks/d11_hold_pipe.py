"""End at once and leave a child that keeps stdout and stderr open."""

import json
import os
import signal
import time

if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(30)
    os._exit(0)
print("ATTACK", json.dumps({"attack": "hold_pipe", "breach": None, "detail": "breach if the run waits"}), flush=True)
