"""The built-in rules behind an OpenAI-compatible server on loopback.

python tests/rules_server.py --port 8000
m3dspy run "..." --data DIR --lm openai/anything --api-base http://127.0.0.1:8000/v1
"""

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from m3dspy.programs.lms.rules import answer


def by_rules(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body for a chat completion request."""
    messages = [(message["role"], text_of(message["content"])) for message in request["messages"]]
    system = "\n".join(text for role, text in messages if role in ("system", "developer"))
    try:
        return 200, _completion(request["model"], answer(system, messages), messages)
    except LookupError as error:
        return 400, {"error": {"message": str(error), "type": "invalid_request_error"}}


def text_of(content):
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _completion(model, text, messages):
    asked, said = sum(len(text.split()) for _, text in messages), len(text.split())
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
    return {"id": "r", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": usage}


@contextmanager
def serve(reply: Callable[[dict[str, Any]], tuple[Any, ...]] = by_rules, port: int = 0) -> Iterator[str]:
    """A server's base address while the block runs.

    Args: reply: the JSON of a POST -> status, body (JSON or bytes) and, if need be, headers; a status of 0 drops the
        connection.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body leave together: else each answer waits for a delayed acknowledgement

        def do_POST(self):
            status, body, *more = reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if status == 0:
                self.close_connection = True
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
            self.send_response(status)
            for name, value in (headers | (more[0] if more else {})).items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(data)
                self.wfile.flush()
            except ConnectionError:  # the client went away while it waited
                self.close_connection = True

        def finish(self):
            with suppress(ConnectionError):
                super().finish()

        def log_message(self, format, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.socket.listen(64)  # five may wait by default: the sixth client tries again a second later
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=8000)
    with serve(port=arguments.parse_args().port) as base:
        print(f"rules at {base}", flush=True)
        threading.Event().wait()
