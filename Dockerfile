# The image in which every step runs on a cluster: the library, its pinned requirements, kfp and MLflow.
# Its name must contain "python" (kfp's local runner looks for it) and its tag is the package's version, since Kubeflow's
# cache sees the image's name and not what is in it:
#   docker build -t pfs-python:0.1.0 .
# For nodes without GPUs, with the address of a package index that has CPU builds of torch and torchvision:
#   docker build -t pfs-python-cpu:0.1.0 --build-arg TORCH_INDEX=ADDRESS .
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/pfs/bin:$PATH
WORKDIR /src
COPY requirements.txt .
RUN python -m venv /opt/pfs \
    && if [ -n "$TORCH_INDEX" ]; then \
         grep -E '^torch(vision)?==' requirements.txt > torch.txt \
         && grep -vE '^(torch|torchvision|triton|nvidia-(cu|nccl|nv).*|cuda-.*)==' requirements.txt > others.txt \
         && pip install --index-url "$TORCH_INDEX" -r torch.txt && pip install -r others.txt; \
       else pip install -r requirements.txt; fi
COPY pyproject.toml README.md LICENSE ./
COPY pfs_core pfs_core
COPY components components
COPY pipelines pipelines
RUN pip install --no-deps --no-build-isolation .

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="pfs" \
      org.opencontainers.image.description="Pruning from Scratch as a Kubeflow pipeline" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --create-home --uid 1000 pfs
COPY --from=build /opt/pfs /opt/pfs
ENV PATH=/opt/pfs/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib GIT_PYTHON_REFRESH=quiet PFS_GIT_COMMIT=${REVISION}
USER 1000
WORKDIR /home/pfs
RUN python -c "import importlib, pkgutil; \
    import boto3, jinja2, kfp.kubernetes, kubernetes, matplotlib, mlflow, numpy, onnx, onnxruntime, onnxscript, PIL, \
    psutil, psycopg2, pyarrow, pydantic, safetensors, scipy, sklearn, torch, torchvision, yaml; \
    [importlib.import_module(m.name) for p in ('pfs_core', 'pfs_components', 'pfs_pipelines') \
     for m in pkgutil.walk_packages(importlib.import_module(p).__path__, p + '.')]" \
    && pip check && pfs cost resnet20 --json && test "$(pfs --version)" = "pfs ${VERSION}"
