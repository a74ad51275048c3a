"""Read, change and list the folder of another run, by its path and through `..`."""

import json
import os

done = []
for top in (os.environ["ATK_OUTSIDE"] + "/../runs", os.environ["M3_OUT"] + "/../runs", os.environ["M3_OUT"] + "/../.."):
    for call in (lambda top=top: open(top + "/other/plan.json").read(), lambda top=top: open(top + "/other/new", "w")):
        try:
            call()
            done.append(top)
        except OSError:
            pass
print("ATTACK", json.dumps({"attack": "other_runs", "breach": bool(done), "detail": done}))
