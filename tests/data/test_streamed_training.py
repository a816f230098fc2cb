"""Search and retraining on images that stay where they are: in a tree, in Parquet, in a bucket; also when it fails."""

import itertools
import os
import re
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from pfs_pipelines.cli import main

from pfs_core.channels import trace
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import RetrainConfig, SplitConfig
from pfs_core.data import load_split, split_dataset
from pfs_core.data.choice import choose_rows
from pfs_core.data.crop import Crop
from pfs_core.data.inputs import samples_of
from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.run import search
from pfs_core.models import build_model
from pfs_core.steps.extraction import extract_structures
from pfs_core.storage import ATTEMPTS, open_storage
from pfs_core.storage.artifacts import read_json
from pfs_core.structure import Structure
from pfs_core.training import checkpoints
from pfs_core.training.retrain import retrain
from tests.budgets import PAPERS_CUT
from tests.data.folders import encode, picture, tree
from tests.training.stopping import Stopped, stop_at

RECIPE = SplitConfig(image_size=32, max_validation_fraction=0.2)
PATHS = [f"{c}/{i:02}.png" for c in ("cat", "dog", "frog") for i in range(12)]


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tree of 36 images of three classes."""
    return tree(tmp_path_factory.mktemp("tree"), *PATHS, size=(40, 36))


@pytest.fixture
def uploaded(folder, bucket):
    """The same in a bucket."""
    storage = open_storage(f"{bucket}/tree")
    for path in PATHS:
        storage.write(path, folder / path)
    return storage.uri


@pytest.fixture
def packed(folder, bucket):
    """The same in a bucket as Parquet."""
    assert main(["pack", str(folder), f"{bucket}/packed"]) == 0
    return f"{bucket}/packed"


def everything(split):
    """An epoch and an evaluation of a split, as bytes."""
    data = load_split(split)
    batches = [*data.part("train").epoch(10, torch.Generator().manual_seed(0))]
    return [
        *(tensor.numpy().tobytes() for batch in batches for tensor in batch),
        *(batch.numpy().tobytes() for batch in data.part("test").in_order(10)),
    ]


def trained(dataset, folder, narrow):
    """Gates, weights and history of a short search and retraining, as bytes."""
    split_dataset(dataset, folder / "split", RECIPE)
    recipe = PfsConfig(epochs=1, batch_size=12, precision="fp32")
    info = search(narrow, folder / "split", folder / "gates", Budget(target=0.5), recipe)
    assert info.model.input_shape == (3, 32, 32)
    extract_structures(folder / "gates", folder / "structures", Budget(target=0.5), PAPERS_CUT)
    pruned = Structure.load(folder / "structures" / "structure.json")
    short = RetrainConfig(epochs=1, batch_size=12, precision="fp32", scratch_b=False)
    metrics = retrain(pruned, folder / "split", folder / "model", short)
    assert metrics.test_rows == sum(map(sum, metrics.confusion_matrix)) == 7
    assert metrics.train_rows == 29
    files = ("gates/gates.safetensors", "model/model.safetensors", "model/history.parquet")
    return [(folder / file).read_bytes() for file in files]


def refused(capsys, *argv):
    """The one line with which a command refuses."""
    capsys.readouterr()
    assert main([str(a) for a in argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_tree_trains_alike_in_a_folder_and_in_a_bucket(folder, uploaded, narrow, tmp_path):
    assert trained(uploaded, tmp_path / "there", narrow) == trained(str(folder), tmp_path / "here", narrow)


def test_a_packed_tree_trains_alike_in_a_folder_and_in_a_bucket(folder, packed, narrow, tmp_path):
    assert main(["pack", str(folder), str(tmp_path / "packed")]) == 0
    assert trained(packed, tmp_path / "there", narrow) == trained(str(tmp_path / "packed"), tmp_path / "here", narrow)


@pytest.mark.parametrize(
    ("kind", "fault"), [("uploaded", "503"), ("packed", "503"), ("packed", "cut"), ("packed", "reset")]
)
def test_faults_that_pass_change_nothing(request, faulty, tmp_path, kind, fault):
    dataset = request.getfixturevalue(kind)
    split_dataset(dataset, tmp_path / "clean", RECIPE)
    clean = everything(tmp_path / "clean")
    count = itertools.count()
    faulty.plan = lambda method, path: fault if next(count) % 3 == 1 else None
    faulty.requests.clear()
    split_dataset(dataset, tmp_path / "split", RECIPE)
    assert everything(tmp_path / "split") == clean
    assert sum(word == fault for *_, word in faulty.requests) >= 3
    for name in ("split.parquet", "files.parquet", "split.json"):
        assert (tmp_path / "split" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()


@pytest.mark.parametrize("fault", ["500", "cut"])
def test_a_store_that_stays_broken_ends_the_split_in_a_line(faulty, uploaded, tmp_path, capsys, fault):
    faulty.plan = lambda method, path: fault if path.endswith(".png") else None
    line = refused(capsys, "split", uploaded, tmp_path / "split", "--set", "split.image_size=32")
    assert re.match(rf"pfs: {uploaded}/[a-z]+/\d\d.png: S3 failed {ATTEMPTS} times: ", line)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_breaks_ends_the_search_in_a_line(faulty, uploaded, tmp_path, capsys):
    split_dataset(uploaded, tmp_path / "split", RECIPE)
    faulty.plan = lambda method, path: "500" if path.endswith(".png") else None
    line = refused(capsys, "search", "--split", tmp_path / "split", "--set", "model.width=4", tmp_path / "gates")
    assert re.match(rf"pfs: {uploaded}/[a-z]+/\d\d.png: S3 failed {ATTEMPTS} times: ", line)
    assert [path.name for path in tmp_path.iterdir()] == ["split"]


@pytest.mark.parametrize("change", ["other", "gone"])
def test_an_image_that_changes_after_the_split_is_named(uploaded, store, folder, tmp_path, capsys, change):
    split_dataset(uploaded, tmp_path / "split", RECIPE)
    if change == "other":
        open_storage(uploaded).write("dog/07.png", encode(picture(99)))
    else:
        store.delete_object(Bucket=uploaded.split("/")[2], Key="tree/dog/07.png")
    line = refused(capsys, "search", "--split", tmp_path / "split", tmp_path / "gates")
    state = "has changed" if change == "other" else "is gone"
    assert line == f"pfs: {uploaded}/dog/07.png {state} since the split was made; split again"


@pytest.mark.parametrize("kind", ["uploaded", "packed"])
def test_an_object_that_changes_during_the_training_is_named(request, kind, tmp_path):
    dataset = request.getfixturevalue(kind)
    split_dataset(dataset, tmp_path / "split", RECIPE)
    training = load_split(tmp_path / "split").part("train")
    storage = open_storage(dataset)
    for entry in storage.files():
        storage.write(entry.path, storage.read(entry)[:-1] + b"!")
    with pytest.raises(UserError, match=rf"{dataset}/[a-z/0-9-]+\.(png|parquet) has changed since it was listed"):
        list(training.epoch(10, torch.Generator()))


def test_a_local_image_that_changes_after_the_split_is_named(folder, tmp_path, narrow):
    copy = shutil.copytree(folder, tmp_path / "tree")
    split_dataset(str(copy), tmp_path / "split", RECIPE)
    (copy / "cat" / "03.png").write_bytes(encode(picture(99)))
    with pytest.raises(UserError, match=r"cat/03.png has changed since the split was made; split again"):
        search(narrow, tmp_path / "split", tmp_path / "gates")


@pytest.mark.parametrize("change", ["size", "time", "gone"])
def test_a_file_that_differs_in_size_or_time_alone_is_named(folder, tmp_path, change):
    copy = shutil.copytree(folder, tmp_path / "tree")
    split_dataset(str(copy), tmp_path / "split", RECIPE)
    file = copy / "cat" / "03.png"
    before = file.stat()
    if change == "gone":
        file.unlink()
    elif change == "size":
        file.write_bytes(file.read_bytes() + b"!")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    (copy / "dog" / "01.png").unlink()
    state = "is gone" if change == "gone" else "has changed"
    with pytest.raises(UserError, match=rf"cat/03.png {state} since the split was made; split again"):
        load_split(tmp_path / "split")


def test_files_that_came_after_the_split_change_nothing(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "tree")
    split_dataset(str(copy), tmp_path / "split", RECIPE)
    before = everything(tmp_path / "split")
    tree(copy, "cat/00b.png", "ant/1.png")
    assert everything(tmp_path / "split") == before


def test_samples_are_kept_as_small_as_crops(tmp_path):
    tree(tmp_path / "tree", *PATHS, size=(300, 200))
    source = open_source(str(tmp_path / "tree"))
    samples = list(samples_of(source, choose_rows(source, RECIPE, 0), Crop((32, 32), 3), 0))
    assert len(samples) == 23
    assert {image.shape for _, image in samples} == {(3, 32, 32)}


@pytest.mark.parametrize("balance", [{"balanced_sampling": True}, {"class_weights": "balanced"}])
def test_an_augmented_training_on_rectangles_goes_on_where_it_was_stopped(folder, tmp_path, monkeypatch, balance):
    monkeypatch.setenv(checkpoints.SECONDS, "0")
    info = split_dataset(str(folder), tmp_path / "split", RECIPE.updated({"image_size": "24x16"}, "split"))
    spec = ModelSpec(name="resnet20", num_classes=3, input_shape=info.input_shape, kwargs={"width": 4})
    graph = trace(build_model(spec), spec.input_shape)
    dense = Structure.from_widths(spec, graph, graph.widths(), Budget(target=1.0), {"method": "dense"})
    changes = {"augment": "trivialaugment", "random_erasing": 0.3, "mixup": 0.2, "cutmix": 1.0, **balance}
    config = RetrainConfig(epochs=3, batch_size=8, precision="fp32", scratch_b=False, **changes)
    retrain(dense, tmp_path / "split", tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        stop_at(patch, 6)  # in epoch 2 of 3, which have 4 steps
        with pytest.raises(Stopped):
            retrain(dense, tmp_path / "split", tmp_path / "out", config)
    retrain(dense, tmp_path / "split", tmp_path / "out", config)
    for name in ("model.safetensors", "history.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert read_json(tmp_path / "out" / "preparation.json")["height"] == 24


def test_commands_from_a_tree_to_a_retrained_network(folder, tmp_path, capsys):
    settings = ("--set", "split.image_size=32", "--set", "split.validation_per_class=3")
    assert main(["split", str(folder), str(tmp_path / "split"), *settings]) == 0
    assert read_json(tmp_path / "split" / "split.json")["rows_per_class"]["validation"] == [3, 3, 3]
    assert len(pq.read_table(tmp_path / "split" / "split.parquet")) == 36
    assert "cat" in (tmp_path / "split" / "dataset.html").read_text()
    search_ = ("--set", "search.epochs=1", "--set", "model.width=4")
    assert main(["search", "--split", str(tmp_path / "split"), *search_, str(tmp_path / "gates")]) == 0
    assert main(["extract", "--gates", str(tmp_path / "gates"), str(tmp_path / "structures")]) == 0
    structure = tmp_path / "structures" / "structure.json"
    retrain_ = ("--set", "retrain.epochs=1", "--set", "retrain.scratch_b=false")
    command = ["retrain", "--structure", structure, "--split", tmp_path / "split", *retrain_, tmp_path / "model"]
    assert main([str(a) for a in command]) == 0
    assert read_json(tmp_path / "model" / "metrics.json")["test_rows"] == 7
    assert "test accuracy" in capsys.readouterr().out
