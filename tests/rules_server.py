"""The built-in rules behind an OpenAI-compatible server on loopback.

python tests/rules_server.py --port 8000
m3dspy run "..." --data DIR --lm openai/anything --api-base http://127.0.0.1:8000/v1
"""

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from m3dspy.programs.lms.rules import answer


def by_rules(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body for a chat completion request."""
    messages = [(message["role"], _text(message["content"])) for message in request["messages"]]
    system = "\n".join(text for role, text in messages if role in ("system", "developer"))
    try:
        return 200, _completion(request["model"], answer(system, messages), messages)
    except LookupError as error:
        return 400, {"error": {"message": str(error), "type": "invalid_request_error"}}


def _text(content):
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _completion(model, text, messages):
    asked, said = sum(len(text.split()) for _, text in messages), len(text.split())
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
    return {"id": "r", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": usage}


@contextmanager
def serve(reply: Callable[[dict[str, Any]], tuple[int, dict[str, Any]]] = by_rules, port: int = 0) -> Iterator[str]:
    """A server's base address while the block runs; `reply` gives status and body for the JSON of a POST."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            status, body = reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
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
