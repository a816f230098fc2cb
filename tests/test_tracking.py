"""Tracking that is off does nothing; only finite numbers are logged."""

import math
import subprocess
import sys

import numpy as np
import torch

from pfs_core.tracking import finite


def test_only_finite_numbers_stay():
    values = {
        "int": 1,
        "float": 0.5,
        "bool": True,
        "nan": math.nan,
        "inf": -math.inf,
        "numpy nan": np.float32("nan"),
        "text": "3",
        "none": None,
        "list": [1.0],
        "dict": {},
    }
    assert finite(values) == {"int": 1.0, "float": 0.5, "bool": 1.0}


def test_numbers_become_python_floats():
    values = {"f32": np.float32(0.5), "f64": np.float64(0.25), "i64": np.int64(3), "tensor": torch.tensor(2.0)}
    found = finite(values)
    assert found == {"f32": 0.5, "f64": 0.25, "i64": 3.0, "tensor": 2.0}
    assert {type(value) for value in found.values()} == {float}


def test_arrays_are_no_numbers():
    assert finite({"array": np.arange(3), "tensor": torch.arange(3), "loss": 1.0}) == {"loss": 1.0}


def test_mlflow_is_not_imported_where_tracking_is_off():
    script = """
import os, sys
for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
    del os.environ[name]
from pfs_core.tracking import step_run
with step_run("search") as run:
    run.params({"a": 1}); run.metrics({"b": 2}); run.summary({"c": 3}); run.artifact("missing")
    assert run.model(None, None, "name") == ""
assert "mlflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
