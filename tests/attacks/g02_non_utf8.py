"""Print bytes that are no text, half characters, NULs, and a line of 3 MiB."""

import sys

out = sys.stdout.buffer
out.write(
    b"\xff\xfe\x80 \xe2\x82 \xed\xa0\x80 \xc0\xaf \xf4\x90\x80\x80\n" + b"\0" * 1000 + b"\n" + b"A" * (3 << 20) + b"\n"
)
out.flush()
print('ATTACK {"attack": "non_utf8", "breach": null, "detail": ""}')
