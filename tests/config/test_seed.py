"""A seed is one that every generator takes, whoever asks."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pfs_pipelines.checks import check_parameters
from pfs_pipelines.cli import main

from pfs_core import steps
from pfs_core.config.request import CompressRequest
from pfs_core.config.seed import LARGEST_SEED, check_seed
from pfs_core.errors import UserError

WRONG = [-1, LARGEST_SEED + 1, 2**64, 0.5, "one", None]


def test_the_largest_seed_is_one_of_every_generator():
    for seed in (0, check_seed(LARGEST_SEED)):
        torch.Generator().manual_seed(seed * 2**31)  # with room for seeds that are computed from it
        np.random.default_rng(seed)
        np.random.RandomState(seed)
        random.Random(seed)
    assert int(float(LARGEST_SEED)) == LARGEST_SEED
    assert CompressRequest.parse({"model": "m", "dataset": "d", "budgets": [], "seed": LARGEST_SEED}, "request")


@pytest.mark.parametrize("seed", WRONG)
def test_no_request_and_no_step_takes_another(seed, tmp_path):
    with pytest.raises(UserError, match=r"^request\.seed: "):
        CompressRequest.parse({"model": "m", "dataset": "d", "budgets": [], "seed": seed}, "request")
    for step in (
        lambda: steps.split("digits", tmp_path / "out", seed=seed),
        lambda: steps.search("resnet20", tmp_path, tmp_path / "out", seed=seed),
        lambda: steps.retrain(tmp_path, tmp_path, tmp_path / "out", seed=seed),
        lambda: steps.benchmark([tmp_path], tmp_path / "out", seed=seed),
    ):
        with pytest.raises(UserError, match="the seed must be a whole number from 0 to 4294967295"):
            step()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ("split", "digits", "out"),
        ("search", "--split", "split", "out"),
        ("retrain", "--split", "split", "--structure", "structure.json", "out"),
        ("benchmark", "--structure", "structure.json", "out"),
        ("run",),
    ],
)
@pytest.mark.parametrize("seed", ["-1", "4294967296", "18446744073709551616", "9" * 5000, "0.5", "one"])
def test_no_command_takes_another(command, seed, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        main([*command, f"--seed={seed}"])
    assert refused.value.code == 2
    assert capsys.readouterr().err.endswith("is not a whole number from 0 to 4294967295\n")


@pytest.mark.parametrize("name", ["seed", "split_seed"])
def test_no_pipeline_is_sent_with_another(name):
    defaults = {"model": "resnet20", "dataset": "digits", "budgets": ["macs=0.5"], name: 0}
    parameters = {key: {"defaultValue": value} for key, value in defaults.items()}
    package = SimpleNamespace(name="pareto", parameters=parameters)
    check_parameters(package, {name: LARGEST_SEED})
    with pytest.raises(UserError, match="seed: .*4294967295"):
        check_parameters(package, {name: LARGEST_SEED + 1})
