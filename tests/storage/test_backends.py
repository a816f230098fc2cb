"""Folders and buckets behave alike: what is listed is what was written, whole, and reading notices a change."""

import io
import os
import signal
import subprocess
import sys

import pytest

from pfs_core.errors import UserError
from pfs_core.storage import ATTEMPTS, LocalStorage, backends, open_file, open_storage, s3
from pfs_core.storage.listing import Entry

CONTENT = bytes(range(256)) * 4
NAMES = ["a.bin", "b/with space.bin", "b/ünï+%41&.bin", "b/c/d.bin", "b0.bin"]
REAL = "PFS_TEST_S3_ENDPOINT" in os.environ


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    """An empty storage."""
    if request.param == "local":
        return open_storage(tmp_path / "root")
    return open_storage(request.getfixturevalue("bucket") + "/some/prefix")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(s3, "_FIRST_WAIT", 0.001)


def refused(call, *args):
    """The one line of the refusal."""
    with pytest.raises(UserError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def touched(root, path):
    """Make sure that a local file's time differs, however coarse the clock is."""
    if isinstance(root, LocalStorage):
        os.utime(root.root / path, ns=(1, 1))


def test_what_was_written_is_listed_in_path_order(root):
    for i, name in enumerate(reversed(NAMES)):
        root.write(name, CONTENT[:i])
    found = root.files()
    assert [entry.path for entry in found] == sorted(NAMES)
    assert [entry.size for entry in found] == [NAMES[::-1].index(name) for name in sorted(NAMES)]
    assert [root.read(entry) for entry in found] == [CONTENT[: entry.size] for entry in found]


def test_hidden_files_and_folders_are_passed_over(root):
    for name in ("a.bin", ".hidden.bin", ".hidden/b.bin", "c/._c.bin", "c/.d/e.bin"):
        root.write(name, b"1")
    assert [entry.path for entry in root.files()] == ["a.bin"]


def test_a_listing_of_many_pages_is_whole(bucket, monkeypatch):
    root = open_storage(bucket)
    paginate = root.client.get_paginator("list_objects_v2").paginate
    for i in range(7):
        root.write(f"{i}.bin", b"1")
    paginator = type("", (), {"paginate": lambda self, **k: paginate(**k, PaginationConfig={"PageSize": 2})})()
    monkeypatch.setattr(root.client, "get_paginator", lambda _: paginator)
    assert [entry.path for entry in root.files()] == [f"{i}.bin" for i in range(7)]


@pytest.mark.parametrize(
    ("start", "length"), [(0, None), (0, 1), (7, 300), (7, None), (1023, 9), (1000, 10**6), (1024, 5), (0, 0)]
)
def test_ranges_are_slices(root, start, length):
    root.write("x.bin", CONTENT)
    (entry,) = root.files()
    assert root.read(entry, start, length) == CONTENT[start : None if length is None else start + length]


def test_an_empty_file_is_read(root):
    root.write("x.bin", b"")
    (entry,) = root.files()
    assert (entry.size, root.read(entry)) == (0, b"")
    assert open_file(root, entry).read() == b""


def test_a_file_is_sought_and_read_as_if_it_were_at_hand(root, monkeypatch):
    monkeypatch.setattr(backends, "_BLOCK", 100)
    root.write("x.bin", CONTENT)
    (entry,) = root.files()
    ours, plain = open_file(root, entry), io.BytesIO(CONTENT)
    for offset, whence, size in [(0, 0, 8), (-20, 2, 8), (3, 1, 4), (90, 0, 30), (1020, 0, 50), (0, 2, 1), (5, 0, -1)]:
        assert ours.seek(offset, whence) == plain.seek(offset, whence)
        assert ours.read(size) == plain.read(size)
        assert ours.tell() == plain.tell()


def test_a_file_is_written_and_replaced(root, tmp_path):
    source = tmp_path / "source.bin"
    for content in (CONTENT, CONTENT[::-1][:10], b""):
        source.write_bytes(content)
        root.write("a/x.bin", source)
        (entry,) = root.files()
        assert root.read(entry) == content


def test_a_file_of_several_parts_arrives_whole(root, tmp_path):
    content = os.urandom(9 * 2**20)
    (tmp_path / "source.bin").write_bytes(content)
    root.write("x.bin", tmp_path / "source.bin")
    (entry,) = root.files()
    assert entry.size == len(content)
    assert root.read(entry) == content
    assert root.read(entry, 8 * 2**20 - 5, 10) == content[8 * 2**20 - 5 :][:10]


@pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT[:-1], CONTENT + b"1"])
def test_a_file_that_changed_is_refused(root, content):
    root.write("x.bin", CONTENT)
    (entry,) = root.files()
    root.write("x.bin", content)
    touched(root, "x.bin")
    line = refused(root.read, entry, 3, 5)
    assert line.startswith(f"{root.uri}/x.bin has changed since it was listed")


def test_a_file_that_is_gone_is_refused(root):
    root.write("x.bin", CONTENT)
    (entry,) = root.files()
    assert f"{root.uri}/y.bin" in refused(root.read, entry._replace(path="y.bin"))


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import botocore.client
from pfs_core.storage import open_storage

def half(content, file, length):
    file.write(content.read(9))
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

def call(self, name, values, original=botocore.client.BaseClient._make_api_call):
    if name == "CompleteMultipartUpload":
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, name, values)

shutil.copyfileobj = half
botocore.client.BaseClient._make_api_call = call
open_storage(sys.argv[1]).write("x.bin", Path(sys.argv[2]))
"""


@pytest.mark.parametrize("earlier", [False, True])
def test_a_killed_write_shows_nothing(root, tmp_path, earlier):
    (tmp_path / "source.bin").write_bytes(bytes(9 * 2**20))
    root.write("other.bin", b"1")
    if earlier:
        root.write("x.bin", CONTENT)
    before = list(root.files())
    command = [sys.executable, "-c", KILLED, root.uri, str(tmp_path / "source.bin")]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert list(root.files()) == before
    if earlier:
        assert root.read(before[1]) == CONTENT


def test_a_failed_write_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    line = refused(LocalStorage(tmp_path).write, "file/x.bin", b"1")
    assert line == f"{tmp_path}/file/x.bin cannot be written: File exists"
    (tmp_path / "x.bin").mkdir()
    assert "x.bin cannot be written: Is a directory" in refused(LocalStorage(tmp_path).write, "x.bin", b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x.bin"]


def test_there_is_no_such_root(tmp_path, bucket):
    assert refused(open_storage(tmp_path / "none").files) == f"{tmp_path}/none does not exist"
    (tmp_path / "file").write_bytes(b"1")
    assert "is a file; name the folder" in refused(open_storage(tmp_path / "file").files)
    assert refused(open_storage(f"{bucket}/none").files) == f"{bucket}/none holds no objects; is the prefix right?"
    missing = open_storage("s3://pfs-no-such-bucket/x")
    assert refused(missing.files) == "s3://pfs-no-such-bucket/x: there is no such bucket or object"
    assert "there is no such bucket" in refused(missing.write, "x.bin", b"1")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_credentials_are_asked_for(bucket, monkeypatch, name):
    for missing in {name, "AWS_ACCESS_KEY_ID"}:
        monkeypatch.delenv(missing)
    if name == "AWS_SECRET_ACCESS_KEY":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "only")
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in refused(open_storage(bucket).files)


@pytest.mark.parametrize("size", [1, 9 * 2**20])
def test_what_is_denied_is_not_tried_again(faulty, bucket, tmp_path, size):
    (tmp_path / "source.bin").write_bytes(bytes(size))
    faulty.plan = lambda method, path: "403"
    for call in (open_storage(bucket).files, lambda: open_storage(bucket).write("x.bin", tmp_path / "source.bin")):
        faulty.requests.clear()
        assert "S3 refused access (Broken); check the credentials and the bucket's policy" in refused(call)
        assert len(faulty.requests) == 1


@pytest.mark.skipif(not REAL, reason="moto admits everybody")
def test_a_wrong_key_is_denied(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "S3 refused access" in refused(open_storage(bucket).files)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "S3 failed 8 times: Could not connect to the endpoint URL"),
        ("AWS_ENDPOINT_URL", "nonsense", "Invalid endpoint: nonsense"),
        ("AWS_PROFILE", "nobody", r"The config profile (nobody) could not be found"),
    ],
)
def test_a_wrong_environment_is_said(bucket, monkeypatch, impatient, name, value, said):
    monkeypatch.setenv(name, value)
    line = refused(open_storage(bucket).files)
    assert line.startswith(f"{bucket}: ")
    assert said in line


def test_a_link_in_a_circle_is_refused(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    assert "a/b/up is a link to a folder above itself" in refused(open_storage(tmp_path).files)


@pytest.mark.parametrize("target", ["itself", "nowhere"])
def test_a_link_to_nothing_is_listed_apart(tmp_path, target):
    (tmp_path / "itself").symlink_to(target)
    (tmp_path / "file").write_bytes(CONTENT)
    storage = open_storage(tmp_path)
    assert [entry.path for entry in storage.files()] == ["file"]
    assert storage.dangling == ["itself"]


def test_links_are_followed(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x.bin").write_bytes(CONTENT)
    for name in ("one", "two"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "far").symlink_to(tmp_path / "far")
    (tmp_path / "root" / "y.bin").symlink_to(tmp_path / "far" / "x.bin")
    root = open_storage(tmp_path / "root")
    found = root.files()
    assert [entry.path for entry in found] == ["one/far/x.bin", "two/far/x.bin", "y.bin"]
    assert {root.read(entry) for entry in found} == {CONTENT}


def test_a_name_that_is_no_text_is_refused(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.bin", "wb"):  # noqa: PTH123
        pass
    assert "\\xff.bin': the name is not UTF-8; rename it" in refused(open_storage(tmp_path).files)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://", "names no bucket; write s3://BUCKET/PREFIX"),
        ("s3:///prefix", "names no bucket; write s3://BUCKET/PREFIX"),
        ("file://data/x", "write file:///FOLDER"),
        ("https://example.com/x", "https:// is not known; use a path, file:// or s3://"),
        ("://x", "is not known"),
        ("", "the address is empty; name a folder"),
    ],
)
def test_odd_addresses_are_refused(uri, message):
    assert message in refused(open_storage, uri)


def test_a_bucket_of_no_possible_name_is_refused(bucket):
    assert "S3 has no bucket" in refused(open_storage, "s3://not a bucket/x")


@pytest.mark.parametrize("name", ["plain", "with space", "half%", "a#b?c", "ünï"])
def test_an_address_of_a_file_is_unquoted(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "x.bin").write_bytes(b"1")
    assert [entry.path for entry in open_storage((tmp_path / name).as_uri()).files()] == ["x.bin"]


@pytest.mark.parametrize("end", ["", "/", "//"])
def test_a_slash_at_the_end_changes_nothing(bucket, end):
    open_storage(f"{bucket}/a/b").write("x.bin", CONTENT)
    root = open_storage(f"{bucket}/a/b{end}")
    assert root.uri == f"{bucket}/a/b"
    assert [entry.path for entry in root.files()] == ["x.bin"]


def test_a_prefix_ends_at_a_slash(bucket):
    open_storage(f"{bucket}/ab").write("x.bin", CONTENT)
    open_storage(f"{bucket}/a").write("y.bin", CONTENT)
    assert [entry.path for entry in open_storage(f"{bucket}/a").files()] == ["y.bin"]
    assert [entry.path for entry in open_storage(bucket).files()] == ["a/y.bin", "ab/x.bin"]


@pytest.mark.parametrize("fault", ["500", "503", "cut", "reset", "slow"])
def test_a_fault_that_passes_is_not_noticed(faulty, bucket, tmp_path, fault):
    (tmp_path / "source.bin").write_bytes(CONTENT)
    faults = []
    faulty.plan = lambda method, path: (faults.append(1), fault if len(faults) % 3 else None)[1]
    root = open_storage(bucket)
    root.write("x.bin", CONTENT)
    root.write("y.bin", tmp_path / "source.bin")
    assert [(entry.path, root.read(entry, 3, 1000)) for entry in root.files()] == [
        ("x.bin", CONTENT[3:1003]),
        ("y.bin", CONTENT[3:1003]),
    ]
    assert sum(word == fault for *_, word in faulty.requests) >= 4


@pytest.mark.parametrize("fault", ["500", "503", "cut", "reset"])
def test_a_fault_that_stays_ends_in_a_line(faulty, bucket, fault):
    root = open_storage(bucket)
    root.write("x.bin", CONTENT)
    (entry,) = root.files()
    faulty.plan = lambda method, path: fault
    faulty.requests.clear()
    assert f"{bucket}/x.bin: S3 failed {ATTEMPTS} times: " in refused(root.read, entry)
    assert len(faulty.requests) == ATTEMPTS


@pytest.mark.parametrize("fault", ["500", "reset"])
def test_a_file_of_several_parts_that_fails_is_not_there(faulty, bucket, tmp_path, fault):
    (tmp_path / "source.bin").write_bytes(bytes(9 * 2**20))
    root = open_storage(bucket)
    root.write("other.bin", b"1")
    faulty.plan = lambda method, path: fault if "partNumber=2" in path else None
    assert "S3 failed" in refused(root.write, "x.bin", tmp_path / "source.bin")
    assert [entry.path for entry in root.files()] == ["other.bin"]


def test_the_client_stays_behind_when_the_storage_is_sent_to_a_worker(bucket):
    import pickle

    root = open_storage(bucket)
    root.write("x.bin", CONTENT)
    sent = pickle.loads(pickle.dumps(root))
    assert "client" not in vars(sent)
    assert [sent.read(entry) for entry in sent.files()] == [CONTENT]


def test_an_object_read_without_its_tag_is_refused(bucket):
    root = open_storage(bucket)
    root.write("x.bin", CONTENT)
    assert "has changed" in refused(root.read, Entry("x.bin", len(CONTENT), "0" * 32))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://user:pw@bucket/x", "s3://...@bucket/x is no address in S3: write s3://BUCKET/PREFIX, and give key and"),
        ("s3://-b-/x", "'s3://-b-/x': S3 has no bucket '-b-'; a name has at least 3 letters, digits, dots and hyphens"),
        ("s3://ab/x", "S3 has no bucket 'ab'"),
        ("s3://a b c/x", "S3 has no bucket 'a b c'"),
        ("s3://bucket:9000/x", "S3 has no bucket 'bucket:9000'"),
    ],
)
def test_what_is_no_bucket_is_refused_without_asking(uri, message):
    refusal = refused(open_storage, uri)
    assert message in refusal
    assert "pw" not in refusal
