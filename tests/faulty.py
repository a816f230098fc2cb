"""A store that fails by a plan: an HTTP proxy on loopback in front of a real one."""

import http.client
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Quiet(ThreadingHTTPServer):
    """A server that says nothing where a client has gone, as one does that is stopped."""

    def handle_error(self, request, client_address):
        pass


class Faulty:
    """A proxy in front of ``endpoint``.

    ``plan`` is called with the method and the path of every request, one at a time, and names what goes wrong: an HTTP
    status such as ``"503"``, or with S3's code ``"404 NoSuchKey"``, ``"cut"`` (half of the body), ``"slow"``,
    ``"reset"``, or None.
    """

    def __init__(self, endpoint):
        self.backend = urlsplit(endpoint).netloc
        self.plan = lambda method, path: None
        self.requests = []
        self._lock = threading.Lock()
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self):
                faulty.answer(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do  # noqa: N815

            def log_message(self, *_):
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        with self._lock:
            fault = self.plan(request.command, request.path)
            self.requests.append((request.command, request.path, fault))
        if fault == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.close_connection = True
            request.connection.close()
        elif fault and fault[0].isdigit():
            status, _, code = fault.partition(" ")
            error = f"<Error><Code>{code or 'Broken'}</Code><Message>planned</Message></Error>"
            send(request, int(status), [], error.encode())
        else:
            send(request, *self._forwarded(request, body), fault)

    def _forwarded(self, request, body):
        headers = {name: value for name, value in request.headers.items() if name.lower() != "expect"}
        connection = http.client.HTTPConnection(self.backend, timeout=60)
        connection.request(request.command, request.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content


def send(request, status, headers, content, fault=None):
    """An answer: whole, slowly, or a half of it."""
    hop = ("connection", "transfer-encoding", "keep-alive")
    kept = [(name, value) for name, value in headers if name.lower() not in hop]
    request.send_response_only(status)
    for name, value in kept:
        request.send_header(name, value)
    if not any(name.lower() == "content-length" for name, _ in kept):
        request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    if request.command == "HEAD":
        return
    if fault == "cut":
        request.wfile.write(content[: len(content) // 2])
        request.close_connection = True
    elif fault == "slow":
        for start in range(0, len(content), len(content) // 4 + 1):
            request.wfile.write(content[start : start + len(content) // 4 + 1])
            request.wfile.flush()
            time.sleep(0.02)
    else:
        request.wfile.write(content)
