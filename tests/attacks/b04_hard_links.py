"""Link files of the dataset and of the outside into the own folder, where they would be writable."""

import json
import os

done = []
for source in (os.environ["M3_DATA"] + "/train.csv", os.environ["ATK_OUTSIDE"] + "/canary.txt", "/etc/passwd"):
    try:
        os.link(source, os.environ["M3_OUT"] + "/" + os.path.basename(source))
        done.append(source)
    except OSError:
        pass
print("ATTACK", json.dumps({"attack": "hard_links", "breach": bool(done), "detail": done}))
