"""``pfs run`` looks at its disk and at MLflow before it starts anything."""

import shutil
import socket
import threading

import pytest
from pfs_pipelines.local import check_disk, check_mlflow

from pfs_core.errors import UserError
from tests.pipelines.certificates import https_server
from tests.servers import free_port, mlflow_server


def test_a_full_disk_is_known_first(tmp_path, monkeypatch):
    check_disk(tmp_path / "not" / "there" / "yet")
    full = shutil._ntuple_diskusage(100 * 2**30, 100 * 2**30 - 2**20, 2**20)
    monkeypatch.setattr("pfs_pipelines.local.shutil.disk_usage", lambda place: full)
    with pytest.raises(UserError, match=f"{tmp_path} has 0.0 GiB left"):
        check_disk(tmp_path / "not" / "there" / "yet")


def test_an_mlflow_that_does_not_answer_is_known_first():
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:\d+ does not answer .*refused") as refused:
        check_mlflow(f"http://user:secret@127.0.0.1:{free_port()}")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (
            "http://user:secret@localhost:abc",
            r"MLflow at http://localhost:abc does not answer \(nonnumeric port: 'abc'\)",
        ),
        ("http://user:secret@[::1", r"MLFLOW_TRACKING_URI is no address \(Invalid IPv6 URL\)"),
        (f"http://user:secret@{'a' * 64}.example", "does not answer .*too long"),
        ("http://user:secret@/", r"does not answer \(no host given\)"),
    ],
)
def test_an_address_that_is_none_is_known_first(uri, words):
    with pytest.raises(UserError, match=words) as refused:
        check_mlflow(uri)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("scheme", "answer"),
    [
        ("http", b"SSH-2.0-OpenSSH\r\n"),
        ("http", b"\x15\x03\x01\x00\x02\x02\x46"),
        ("http", b"HTTP/9\r\n"),
        ("http", b""),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ],
)
def test_a_server_that_is_no_mlflow_is_known_first(scheme, answer):
    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(UserError, match=r"answer \(.*(does not speak HTTP|Remote end closed|wrong version)"):
            check_mlflow(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
        server.join()


def test_one_of_an_authority_of_ones_own_is_right_for_mlflow_has_settings_for_it(tmp_path):
    with https_server(tmp_path) as address:
        check_mlflow(address)


def test_one_that_answers_or_is_a_file_is_right(tmp_path):
    check_mlflow("")
    check_mlflow(f"sqlite:///{tmp_path}/mlflow.db")
    port = free_port()
    with mlflow_server(tmp_path, port=port):
        check_mlflow(f"http://127.0.0.1:{port}/")
