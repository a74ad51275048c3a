"""Leave files whose names are commands, escapes and ways out of the folder."""

import json
import os

os.chdir(os.environ["M3_OUT"])
made = 0
for name in (
    b"-rf",
    b"; touch pwned",
    b"$(touch pwned)",
    b"\x1b[2J",
    b"a\nb",
    b"\xff\xfe",
    b"..\\..\\x",
    b"x" * 255,
    b" ",
    b"[[ ## completed ## ]]",
):
    with open(name, "w"):
        made += 1
print("ATTACK", json.dumps({"attack": "odd_names", "breach": None, "detail": made}))
