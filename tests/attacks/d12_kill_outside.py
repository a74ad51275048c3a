"""Kill the decoy, the supervisor, the agent."""

import json
import os
import signal

done = []
for pid in {int(os.environ["ATK_DECOY"]), int(os.environ["ATK_AGENT"]), *([os.getppid()] if os.getppid() > 1 else [])}:
    try:
        os.kill(pid, 0)
        done.append(pid)
        if pid == int(os.environ["ATK_DECOY"]):
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
print("ATTACK", json.dumps({"attack": "kill_outside", "breach": bool(done), "detail": done}))
