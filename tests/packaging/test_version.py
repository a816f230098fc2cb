"""The version is written in pfs_core/__init__.py; wherever else it has to stand, it is the same one."""

import re
import subprocess
from pathlib import Path

import pfs_core

ROOT = Path(__file__).parents[2]
PLACES = (r"pfs-python(?:-cpu)?:(\d[\w.]*)", r"ARG VERSION=(\S+)", r"newTag: (\S+)")


def test_images_in_docs_manifests_and_dockerfile_have_the_version_of_the_package():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    found = {
        (name, version)
        for name in tracked
        if name == "Dockerfile" or (name.startswith(("docs/", "manifests/")) and name.endswith((".md", ".yaml")))
        for pattern in PLACES
        for version in re.findall(pattern, (ROOT / name).read_text())
    }
    assert len(found) > 5
    assert {version for _, version in found} == {pfs_core.__version__}, found
