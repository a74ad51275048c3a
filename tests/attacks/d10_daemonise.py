"""Double fork + setsid, ignore SIGTERM, close the pipes, keep writing a heartbeat after the script has ended with 0."""

import json
import os
import signal
import time

if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    n = os.open("/dev/null", os.O_RDWR)
    [os.dup2(n, f) for f in (0, 1, 2)]
    for i in range(300):
        with open(os.environ["M3_OUT"] + "/heartbeat", "w") as f:
            f.write(str(i))
        time.sleep(0.1)
    os._exit(0)
time.sleep(0.5)
print(
    "ATTACK",
    json.dumps({"attack": "daemonise", "breach": None, "detail": "breach if the heartbeat moves after the run ended"}),
    flush=True,
)
