"""A page served while its run goes on: to this machine alone, and to nobody who was not told the address."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_urlsafe
from threading import Lock

from m3dspy.errors import M3Error

HOST = "127.0.0.1"
EVERY = 5  # seconds from one look to the next
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
}


@contextmanager
def server(page: Callable[[], str], going_on: Callable[[], bool]) -> Iterator[tuple[ThreadingHTTPServer, str]]:
    """A server of one page, on a free port, and its address; nothing is served before `serve_forever`.

    A request that names another host is refused: a web site may have its name point here. The address holds a secret,
    as other users of the machine reach the port, too.

    Args: page: makes it.  going_on: whether it is still to change; then browsers ask again.
    """
    secret, lock = f"/{token_urlsafe(16)}", Lock()
    kept: dict[bool, tuple[float, bytes]] = {}  # of the unfinished run, and of the finished one

    def made(unfinished: bool) -> bytes:
        with lock:
            if unfinished not in kept or time.monotonic() - kept[unfinished][0] > EVERY:
                kept[unfinished] = time.monotonic(), page().encode()
            return kept[unfinished][1]

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "m3dspy", ""

        def do_GET(self) -> None:
            if self.headers.get_all("Host") != [f"{HOST}:{self.server.server_port}"]:  # pyright: ignore
                return self.answer(421, b"This server answers to its own address only.")
            if not compare_digest(self.path.encode(), secret.encode()):
                return self.answer(404, b"There is nothing here. The address is the one that m3dspy printed.")
            unfinished = going_on()
            try:
                body = made(unfinished)
            except (M3Error, OSError) as error:  # the run is taking something back
                return self.answer(503, f"The page cannot be made at the moment: {error}".encode(), again=True)
            return self.answer(200, body, again=unfinished)

        def answer(self, status: int, body: bytes, *, again: bool = False) -> None:
            self.send_response(status)
            kind = "html" if status == 200 else "plain"
            for name, value in {**HEADERS, "Content-Type": f"text/{kind}; charset=utf-8"}.items():
                self.send_header(name, value)
            if again:
                self.send_header("Refresh", str(EVERY))
            self.send_header("Content-Length", str(len(body)))
            with suppress(ConnectionError):  # the reader has left
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as served:
        served.daemon_threads = True
        yield served, f"http://{HOST}:{served.server_port}{secret}"
