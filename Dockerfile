# The image in which every step runs on a cluster: the library, its pinned requirements, kfp and MLflow.
# Its name must contain "python" (kfp's local runner looks for it) and its tag is the package's version, e.g.
#   docker build -t pfs-python:0.1.0 .
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE}

WORKDIR /opt/pfs
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

COPY pyproject.toml README.md LICENSE ./
COPY pfs_core pfs_core
COPY components components
COPY pipelines pipelines
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
    && python -c "import kfp, mlflow, sklearn, torchvision, pipelines.compress" \
    && pfs cost resnet20 --json

RUN useradd --create-home --uid 1000 pfs
USER 1000
WORKDIR /home/pfs
