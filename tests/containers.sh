#!/usr/bin/env bash
# Builds the image, or takes the one that IMAGE names, and runs pfs in it: whole, with a root that cannot be written; with a
# trainer that is killed; and a container a step. With Docker, or with podman: DOCKER=podman DOCKER_HOST=unix:///run/podman/podman.sock
set -euo pipefail
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' pfs_core/__init__.py)
image=${IMAGE:-localhost/pfs-python:$version}
[ -n "${IMAGE:-}" ] || "$docker" build --build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD)" -t "$image" .
"$docker" run --rm --read-only --tmpfs /tmp --workdir /tmp "$image" \
  pfs run --set model.width=4 --set search.epochs=1 --set retrain.epochs=1 --set latency.max_seconds=1
"$docker" run --rm --read-only --tmpfs /tmp --workdir /tmp --volume "$PWD/tests:/mounted/tests:ro" --env PYTHONPATH=/mounted "$image" \
  python -m tests.killed
folder=$(mktemp -d)
chmod 755 "$folder"
.venv/bin/python -m tests.containers "$image" "$folder/pfs"
"$docker" image inspect --format "$image is {{.Size}} bytes" "$image"
