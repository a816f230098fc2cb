"""Amounts of memory and cores as Kubernetes writes them."""

import re

MEMORY = re.compile(r"(?=.*[1-9])\d+(\.\d+)?([KMGTPE]i|[kMGTPE])?", re.ASCII), "a Kubernetes quantity, e.g. 16Gi"
"""The pattern of an amount of memory, which is not 0, and what a message says that it must be."""
CORES = (
    re.compile(r"(?=.*[1-9])(\d+m?|\d+\.\d+)", re.ASCII),
    "a number of cores as Kubernetes writes it, e.g. 2 or 500m",
)
"""The same of a number of cores."""
