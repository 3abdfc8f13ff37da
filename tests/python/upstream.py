"""A ThingSpace that accepts every change and leaves the callbacks to the test."""

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN, SESSION = "token-" + uuid.uuid4().hex, "session-" + uuid.uuid4().hex


class ThingSpace:
    """What was asked of it, as (path, headers, body)."""

    def __init__(self, answer=None):
        self.requests = []
        thingspace = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                thingspace.requests.append((self.path, self.headers, body))
                status, said = 200, thingspace.answer(self.path)
                if answer and not self.path.endswith(("/token", "/login")):
                    status, said = answer(json.loads(body))
                said = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.server.server_port}/api"

    @staticmethod
    def answer(path):
        if path.endswith("/token"):
            return {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
        if path.endswith("/login"):
            return {"sessionToken": SESSION}
        return {"requestId": str(uuid.uuid4())}

    def changes(self):
        """The plan changes that arrived."""
        return [r for r in self.requests if not r[0].endswith(("/token", "/login"))]
