"""Only finite numbers are logged."""

import math

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
