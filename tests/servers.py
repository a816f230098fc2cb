"""Servers for tests, on free ports of loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def served(command, health, folder, env=None, seconds=90):
    """What ``command`` serves, from when the address ``health`` answers; what it says is in ``folder/server.log``."""
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True) as server,
    ):
        try:
            end = time.monotonic() + seconds
            while True:
                try:
                    urllib.request.urlopen(health).close()
                    break
                except OSError:
                    if time.monotonic() > end or server.poll() is not None:
                        raise TimeoutError((folder / "server.log").read_text()) from None
                    time.sleep(0.2)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(server.pid, signal.SIGKILL)  # and its workers


@contextlib.contextmanager
def mlflow_server(folder, seconds=90, port=None):
    """The address of an MLflow server with its database and artifacts in ``folder``."""
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    store = (
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    )
    command = [sys.executable, "-m", "mlflow", "server", *store, "--port", str(port), "--workers", "1"]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # processes that wait for jobs nobody has
    with served(command, f"{address}/health", folder, env, seconds):
        yield address


@contextlib.contextmanager
def answering(status, body=b"You are not authenticated."):
    """A server that answers everything with a status and a text; yields its port."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as refusing:
        threading.Thread(target=refusing.serve_forever, args=(0.01,)).start()
        try:
            yield refusing.server_address[1]
        finally:
            refusing.shutdown()
