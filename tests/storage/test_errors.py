"""What a store answers decides which kind of error it is: what is not there yet, not allowed, changed, out of reach."""

import pytest

from pfs_core.errors import AccessDeniedError, ChangedError, InvalidError, NotFoundError, UnreachableError, UserError
from pfs_core.storage import open_storage
from pfs_core.storage.artifacts import read_json, read_yaml, require_result


def kind_of(call, *args):
    """The kind of the error that a call raises, which is one line."""
    with pytest.raises(UserError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return type(error.value)


ANSWERS = {
    "404 NoSuchKey": NotFoundError,
    "404 NoSuchBucket": NotFoundError,
    "401 Unauthorized": AccessDeniedError,
    "403 AccessDenied": AccessDeniedError,
    "403 InvalidAccessKeyId": AccessDeniedError,
    "403 SignatureDoesNotMatch": AccessDeniedError,
    "400 ExpiredToken": AccessDeniedError,
    "400 InvalidToken": AccessDeniedError,
    "412 PreconditionFailed": ChangedError,
    "400 InvalidArgument": InvalidError,
    "408 RequestTimeout": UnreachableError,
    "400 RequestTimeout": UnreachableError,
    "429 TooManyRequests": UnreachableError,
    "500 InternalError": UnreachableError,
    "503 SlowDown": UnreachableError,
    "reset": UnreachableError,
    "cut": UnreachableError,
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_kind_of_an_error_follows_from_the_answer(faulty, bucket, answer):
    root = open_storage(bucket)
    root.write("x.bin", b"123456")
    (entry,) = root.files()
    faulty.plan = lambda method, path: answer
    assert kind_of(root.read, entry) is ANSWERS[answer]


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer != "cut"])
def test_every_request_is_judged_alike(faulty, bucket, answer):
    root = open_storage(bucket)
    faulty.plan = lambda method, path: answer
    for call in (root.files, lambda: root.write("x.bin", b"1"), lambda: root.remove("x.bin")):
        assert kind_of(call) is ANSWERS[answer]


def test_what_is_not_there_is_not_found(bucket, tmp_path):
    for root in (open_storage(f"{bucket}/none"), open_storage("s3://pfs-no-such-bucket"), open_storage(tmp_path / "x")):
        assert kind_of(root.files) is NotFoundError


@pytest.mark.parametrize("place", ["bucket", "tmp_path"])
def test_a_listed_file_that_is_removed_or_replaced_is_told_apart(request, place):
    root = open_storage(request.getfixturevalue(place))
    for name in ("removed.bin", "replaced.bin"):
        root.write(name, b"123456")
    removed, replaced = root.files()
    root.remove("removed.bin")
    root.write("replaced.bin", b"12345")
    assert kind_of(root.read, removed) is NotFoundError
    assert kind_of(root.read, replaced) is ChangedError


def test_a_folder_without_permission_is_denied(tmp_path, monkeypatch):
    def deny(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    root = open_storage(tmp_path)
    root.write("x.bin", b"1")
    (entry,) = root.files()
    monkeypatch.setattr("os.scandir", deny)
    monkeypatch.setattr("pathlib.Path.open", deny)
    monkeypatch.setattr("pathlib.Path.read_text", deny)
    for call in (root.files, lambda: root.read(entry), lambda: read_json("x.json"), lambda: read_yaml("x.yaml")):
        assert kind_of(call) is AccessDeniedError


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, UnreachableError),
        ({"AWS_ENDPOINT_URL": "nonsense"}, InvalidError),
        ({"AWS_PROFILE": "nobody"}, InvalidError),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, AccessDeniedError),
        ({"AWS_SECRET_ACCESS_KEY": None}, AccessDeniedError),
    ],
)
def test_the_environment_may_be_wrong(bucket, monkeypatch, environment, kind):
    monkeypatch.setattr("pfs_core.storage.s3._FIRST_WAIT", 0.001)
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    assert kind_of(open_storage(bucket).files) is kind


@pytest.mark.parametrize("address", ["s3://", "https://example.com/x", "file://x"])
def test_an_odd_address_is_invalid(address):
    assert kind_of(open_storage, address) is InvalidError


def test_results_are_missing_or_no_json(tmp_path):
    (tmp_path / "x.json").write_text("{")
    assert kind_of(read_json, tmp_path / "none.json") is NotFoundError
    assert kind_of(read_yaml, tmp_path / "none.yaml") is NotFoundError
    assert kind_of(read_json, tmp_path / "x.json") is InvalidError
    assert kind_of(require_result, tmp_path / "none", "gates", "pfs search") is NotFoundError
    assert kind_of(require_result, tmp_path, "gates", "pfs search") is NotFoundError
