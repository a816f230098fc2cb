"""Result files keep the layout that they had before they were read as objects, and older ones are still read.

Each file is written here by hand, with the keys in the order in which the steps write them.
"""

import json

import pytest

from pfs_core.config.stages import RetrainConfig, SplitConfig
from pfs_core.data.split_info import SplitInfo
from pfs_core.errors import UserError
from pfs_core.latency.results import LatencyResult
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.search_info import SearchInfo
from pfs_core.report.summary import ReportSummary
from pfs_core.training.metrics import TrainingMetrics

SPLIT = {
    "schema": "pfs.split/2",
    "dataset": "digits",
    "kind": "digits",
    "in_memory": True,
    "seed": 0,
    "fingerprint": "ab12",
    "source_fingerprint": "cd34",
    "input_shape": [1, 8, 8],
    "class_names": ["0", "1"],
    "rows": {"train": 5, "validation": 2, "test": 3},
    "rows_per_class": {"train": [3, 2], "validation": [1, 1], "test": [2, 1]},
    "test_is_given": False,
    "skipped": [{"image": "digits, row 3", "reason": "cut short"}],
    "mean": [77.9],
    "std": [95.9],
    "augmentation": {"crop_padding": 1, "flip": False},
    "recipe": {
        "validation": 5000,
        "validation_per_class": None,
        "stratified": False,
        "max_validation_fraction": 0.1,
        "test_fraction": 0.2,
        "flip": True,
        "channels": None,
        "image_size": None,
        "resize": "crop",
        "crop_scale": [0.08, 1.0],
        "background": "white",
        "image_column": None,
        "label_column": None,
        "on_bad": "stop",
    },
}
COST = {"seconds": 3.5, "device_seconds": 6.25, "forward_images": 2732, "backward_images": 2588}
SEARCH = {
    "schema": "pfs.gates/1",
    "method": "pfs",
    "model": {
        "name": "resnet20",
        "num_classes": 10,
        "input_shape": [1, 8, 8],
        "expand": 1.25,
        "expand_stream": None,
        "kwargs": {"width": 4},
    },
    "recipe": {
        "method": "pfs",
        "expand": 1.25,
        "expand_stream": None,
        "policy": "inner",
        "placement": "last",
        "precision": "fp32",
        "epochs": 2,
        "batch_size": 256,
        "lr": 0.01,
        "gamma": 0.5,
        "target_ratio": None,
        "pretrain_epochs": 0,
        "draws": 1,
        "compile": False,
        "evaluate_every": None,
        "settled": None,
        "settled_evaluations": 3,
    },
    "budget": "macs=0.5",
    "device": "cpu",
    "seed": 0,
    "precision": "fp32",
    "target_ratio": 0.5,
    "kept_epoch": 2,
    "kept_step": 12,
    "steps": 12,
    "validation_accuracy": 0.1875,
    "nonzero": 1.0,
    "split_fingerprint": "ab12",
    "pfs_version": "0.1.0",
    "git_commit": "0123abc",
    "seconds": 3.5,
    "cost": {"search": COST},
    "peak_memory_mib": {"host": 512},
}
METRICS = {
    "schema": "pfs.model/1",
    "network": "pruned",
    "trained": True,
    "macs": 100,
    "params": 10,
    "train_rows": 7,
    "class_names": ["0", "1"],
    "recipe": RetrainConfig(epochs=4).model_dump(mode="json"),
    "precision": "fp32",
    "device": "cpu",
    "split_fingerprint": "ab12",
    "pfs_version": "0.1.0",
    "git_commit": "0123abc",
    "image": "registry/pfs-python:7",
    "test_accuracy": 0.75,
    "test_accuracy_interval": [0.5, 0.875],
    "test_rows": 4,
    "confusion_matrix": [[2, 1], [0, 1]],
    "best_validation": None,
    "epochs": 8,
    "processes": 1,
    "seed": 0,
    "seconds": 3.5,
    "cost": {"retrain": COST},
    "peak_memory_mib": {"host": 512},
}
STATS = {
    "rounds": 200,
    "min_ms": 0.25,
    "p50_ms": 0.5,
    "p50_interval_ms": [0.4375, 0.5625],
    "p90_ms": 0.75,
    "p99_ms": 1.0,
}
LATENCY = {
    "schema": "pfs.latency/2",
    "models": {
        "dense": {"macs": 200, "params": 20, "file_mib": 0.5},
        "pruned": {"macs": 100, "params": 10, "file_mib": 0.25},
    },
    "measurements": [
        {
            "runtime": "onnxruntime",
            "threads": 1,
            "batch": 1,
            "models": {
                "dense": {**STATS, "flags": [], "peak_memory_mib": 12.5},
                "pruned": {**STATS, "flags": ["noisy"], "peak_memory_mib": None},
            },
            "ratios_to_dense": {"pruned": {"ratio": 0.75, "interval": [0.5, 0.875], "verdict": "faster"}},
        }
    ],
    "skipped": {"openvino": "not installed"},
    "dtype": "float32",
    "pinned": True,
    "machine": {
        "cpu": "A processor",
        "flags": ["avx2"],
        "governor": "unknown",
        "cores": 2,
        "memory_gib": 7.5,
        "system": "Linux",
        "python": "3.11.9",
        "torch": "2.11.0",
        "onnxruntime": "1.20.0",
    },
    "disturbance_cores": {"others": 0.125, "stolen": 0.0},
    "seconds": 75.5,
    "noisy": [],
    "recipe": {
        "patience_seconds": 180.0,
        "warmup_seconds": 1.0,
        "warmup_rounds": 10,
        "min_rounds": 100,
        "max_seconds": 30.0,
        "relative_width": 0.02,
        "runtimes": ["onnxruntime", "eager"],
        "threads": [1, 0],
        "batches": [1],
    },
    "seed": 0,
}
REPORT = {
    "schema": "pfs.report/2",
    "verdict": ["resnet20 is faster."],
    "table": [
        {
            "network": "dense",
            "macs": 200,
            "params": 20,
            "test_accuracy": None,
            "test_accuracy_interval": None,
            "epochs": None,
            "p50_ms": 0.5,
            "p50_interval_ms": [0.4375, 0.5625],
            "latency_ratio": None,
            "latency_ratio_interval": None,
            "latency_verdict": None,
            "latency_flags": [],
            "file_mib": 0.5,
            "peak_memory_mib": 12.5,
        }
    ],
    "figures": {"search_seconds": 3.5, "dense_macs": 200},
    "registered": "pfs-resnet20/1",
}
FILES = [(SplitInfo, SPLIT), (SearchInfo, SEARCH), (TrainingMetrics, METRICS), (LatencyResult, LATENCY)]
FILES += [(ReportSummary, REPORT)]


def write(folder, values):
    path = folder / "file.json"
    path.write_text(json.dumps(values))
    return path


def without(values, *keys):
    return {key: value for key, value in values.items() if key not in keys}


@pytest.mark.parametrize(("kind", "values"), FILES)
def test_a_file_that_is_read_and_written_is_the_same_text(kind, values, tmp_path):
    kind.load(write(tmp_path, values)).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == json.dumps(values, indent=1) + "\n"


def test_values_are_typed(tmp_path):
    split = SplitInfo.load(write(tmp_path, SPLIT))
    assert (split.input_shape, split.config, split.augmentation.crop_padding) == ((1, 8, 8), SplitConfig(), 1)
    search = SearchInfo.load(write(tmp_path, SEARCH))
    assert search.config == PfsConfig(epochs=2, batch_size=256, precision="fp32")
    assert search.cost["search"].forward_images == 2732
    assert TrainingMetrics.load(write(tmp_path, METRICS)).config == RetrainConfig(epochs=4)
    assert LatencyResult.load(write(tmp_path, LATENCY)).quoted.models["dense"].p50_interval_ms == (0.4375, 0.5625)


def test_a_search_from_before_there_were_methods_is_one_of_pfs(tmp_path):
    recipe = without(SEARCH["recipe"], "method", "placement", "pretrain_epochs", "settled", "settled_evaluations")
    older = without(SEARCH, "method", "cost", "peak_memory_mib", "git_commit", "kept_step", "steps")
    info = SearchInfo.load(write(tmp_path, {**older, "recipe": recipe}))
    assert (info.method, info.cost, info.peak_memory_mib, info.git_commit) == ("pfs", {}, {}, None)
    assert info.config == PfsConfig(epochs=2, batch_size=256, precision="fp32")
    assert info.stage_seconds == {"search": 3.5}


def test_a_training_from_before_costs_were_recorded_is_read(tmp_path):
    recipe = {**without(METRICS["recipe"], "ema"), "start": "kept", "a_setting_of_then": 1}
    older = without(METRICS, "cost", "processes", "best_validation", "peak_memory_mib", "git_commit", "image")
    metrics = TrainingMetrics.load(write(tmp_path, {**older, "recipe": recipe}))
    assert metrics.config == RetrainConfig(epochs=4, start="inherited")
    assert (metrics.cost, metrics.best_validation, metrics.processes) == ({}, None, 1)


def test_latencies_from_before_memory_and_disturbance_were_measured_are_read(tmp_path):
    measurement = LATENCY["measurements"][0]
    models = {name: without(stats, "peak_memory_mib") for name, stats in measurement["models"].items()}
    older = {**without(LATENCY, "seconds", "disturbance_cores"), "measurements": [{**measurement, "models": models}]}
    latency = LatencyResult.load(write(tmp_path, {**older, "load_1min": 0.5, "steal_seconds": 0.0}))
    assert (latency.seconds, latency.disturbance_cores) == (None, None)
    assert latency.quoted.models["pruned"].peak_memory_mib is None


@pytest.mark.parametrize(("kind", "values"), FILES)
def test_another_schema_is_refused_with_what_to_do(kind, values, tmp_path):
    path = write(tmp_path, {**values, "schema": "pfs.other/9"})
    message = rf"file.json has schema 'pfs.other/9'; expected '{values['schema']}'; {kind.made_again_by}"
    with pytest.raises(UserError, match=message):
        kind.load(path)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (SplitInfo, without(SPLIT, "mean"), "file.json: mean: is missing"),
        (SplitInfo, {**SPLIT, "rows": {"train": "many"}}, "file.json: rows.train: must be a whole number"),
        (SearchInfo, {**SEARCH, "method": "magic"}, "file.json: recipe: of an unknown method; known: pfs, uniform"),
        (
            LatencyResult,
            {**LATENCY, "measurements": []},
            "file.json: measurements: must be a list of objects, at",
        ),
        (LatencyResult, [], "file.json has schema None; expected 'pfs.latency/2'"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_a_line(kind, values, message, tmp_path):
    with pytest.raises(UserError, match=message) as e:
        kind.load(write(tmp_path, values))
    assert "\n" not in str(e.value)
