"""Wrong input gets one clear line, exit code 2, and leaves nothing behind."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from pfs_pipelines.cli import main
from pfs_pipelines.run_folders import states

from pfs_core.structure import Structure
from tests.data.folders import images, png, tree, write


def refused(capsys, *argv):
    """The one line with which a command refuses."""
    assert main([str(a) for a in argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("pfs: ")
    return lines[0]


def test_unknown_model_is_refused_with_the_nearest_name(capsys):
    line = refused(capsys, "cost", "resnet21")
    assert "'resnet21'" in line
    assert "did you mean resnet20?" in line


def test_unknown_model_settings_are_refused(capsys):
    assert "'depth'" in refused(capsys, "cost", "resnet20", "--set", "model.depth=3")


def test_networks_of_ones_own_are_refused_in_one_line(capsys, nets):
    known = "model nets:build: its input shape is not known; give --input CxHxW"
    assert refused(capsys, "cost", "nets:build") == f"pfs: {known}"
    assert refused(capsys, "inspect", "nets:build") == f"pfs: {known}"
    assert "nets has no 'bulid' (did you mean build?)" in refused(capsys, "cost", "nets:bulid")
    line = refused(capsys, "cost", "nets:rgb", "--input", "1x8x8")
    assert line.startswith("pfs: Net cannot process 1x8x8 images: ")
    assert "'depth'" in refused(capsys, "cost", "nets:build", "--input", "1x8x8", "--set", "model.depth=3")
    assert "take 3 channels (got 1)" in refused(capsys, "cost", "torchvision:resnet18", "--input", "1x64x64")
    assert "did you mean torchvision:resnet18?" in refused(capsys, "cost", "torchvision:resnet19")


def test_wrong_spec_files_are_refused(capsys, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text("{name: resnet20, width: 4}")
    commands = (("run", "--model"), ("search", "--split", digits, "out", "--model"), ("cost",), ("inspect",))
    for command in commands:
        assert "net.yaml.width is not a setting; known: name, " in refused(capsys, *command, "net.yaml")
        assert "none.yaml cannot be read: No such file" in refused(capsys, *command, "none.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["net.yaml"]


def test_a_network_that_ends_the_process_of_the_run_fails_it(capsys, here):
    (here / "leaving.py").write_text("import os\n\n\ndef build(**kwargs):\n    os._exit(0)\n")
    assert main(["run", "--model", "leaving:build"]) == 1
    assert "does the code of leaving:build call os._exit?" in capsys.readouterr().err
    (state,) = states(here / "pfs-runs")
    assert state["state"] == "stopped"


def test_image_too_small_for_the_network_is_refused(capsys):
    line = refused(capsys, "cost", "vgg16", "--input", "1x8x8")
    assert "VGG cannot process 1x8x8 images" in line
    assert "too small" in line


@pytest.mark.parametrize("shape", ["3x", "3x32", "axbxc", "3x0x3"])
def test_bad_input_shapes_are_refused(capsys, shape):
    refused(capsys, "cost", "resnet20", "--input", shape)


def test_a_name_that_the_registry_does_not_take_is_refused_before_anything_starts(capsys, here):
    line = refused(capsys, "run", "--register", "team/resnet20")
    assert "takes no name with / or : in it ('team/resnet20')" in line
    assert list(here.iterdir()) == []


def test_unknown_dataset_is_refused(capsys, tmp_path):
    assert "use digits, or a folder" in refused(capsys, "split", "cifra10", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_missing_and_empty_folders_are_refused(capsys, tmp_path):
    assert "does not exist" in refused(capsys, "split", tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "holds no *.parquet file" in refused(capsys, "split", tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["image", "label"])
def test_missing_column_is_refused(capsys, tmp_path, column):
    import pyarrow.parquet as pq

    file = tmp_path / "train.parquet"
    write(file, [png(image) for image in images(4)], [0, 1, 0, 1])
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    line = refused(capsys, "split", tmp_path, tmp_path / "out")
    assert f"train.parquet has no column '{column}'" in line


def test_undecodable_image_is_refused_with_row_and_file(capsys, tmp_path):
    encoded = [png(image) for image in images(30)]
    encoded[17] = b"not an image"
    write(tmp_path / "train.parquet", encoded, [i % 2 for i in range(30)])
    line = refused(capsys, "split", tmp_path, tmp_path / "out")
    assert "train.parquet, row 17: the image cannot be decoded" in line
    assert not (tmp_path / "out").exists()


def test_label_out_of_range_is_refused_with_row_and_file(capsys, tmp_path):
    write(tmp_path / "train.parquet", [png(i) for i in images(4)], [0, 1, 5, 1], classes=["cat", "dog"])
    line = refused(capsys, "split", tmp_path, tmp_path / "out")
    assert "train.parquet, row 2: label 5 is out of range" in line
    assert "0 to 1" in line


@pytest.mark.parametrize(
    "budget", ["macs=0", "macs=1.5", "macs=-1", "macs", "flops=0.5", "macs=0.5x", "macs=..", "macs=9G", ""]
)
def test_bad_budgets_are_refused(capsys, gates, tmp_path, budget):
    line = refused(capsys, "extract", "--gates", gates, "--budget", budget, tmp_path / "out")
    assert "macs" in line
    assert not (tmp_path / "out").exists()


def test_unreachable_budget_is_refused_and_the_named_one_works(capsys, gates, tmp_path):
    line = refused(capsys, "extract", "--gates", gates, "--budget", "macs=0.001", tmp_path / "out")
    smallest = line.split("ask for ")[1].split(" or more")[0]
    assert main(["extract", "--gates", str(gates), "--budget", smallest, str(tmp_path / "out")]) == 0


def test_structure_of_another_schema_is_refused(capsys, structures, digits, tmp_path):
    values = json.loads((structures / "structure.json").read_text())
    file = tmp_path / "structure.json"
    file.write_text(json.dumps({**values, "schema": "pfs.structure/9"}))
    line = refused(capsys, "retrain", "--structure", file, "--split", digits, tmp_path / "out")
    assert "'pfs.structure/9'" in line
    assert "'pfs.structure/1'" in line


def test_structure_with_unknown_groups_is_refused(capsys, structures, tmp_path):
    values = json.loads((structures / "structure.json").read_text())
    values["widths"]["layer9.conv1"] = 3
    file = tmp_path / "structure.json"
    file.write_text(json.dumps(values))
    line = refused(capsys, "benchmark", "--structure", file, tmp_path / "out")
    assert "unknown channel group 'layer9.conv1'" in line


def test_out_that_is_a_file_is_refused_and_kept(capsys, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert "is a file" in refused(capsys, "split", "digits", file)
    assert "is a file" in refused(capsys, "run", "--out", file)
    assert "is a file" in refused(capsys, "compile", "--out", file)
    assert file.read_text() == "mine"


def test_a_folder_for_packages_that_cannot_be_made_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    assert "notes.txt is a file, not a folder" in refused(capsys, "compile", "--out", "notes.txt/x")
    assert "link is a link that leads nowhere" in refused(capsys, "compile", "--out", "link")
    assert "loop is a link that leads nowhere" in refused(capsys, "compile", "--out", "loop")
    assert "is an address; name a folder" in refused(capsys, "compile", "--out", "s3://bucket/x")
    assert "File name too long" in refused(capsys, "compile", "--out", "a" * 300)
    assert "--kubernetes must be a namespace" in refused(capsys, "compile", "--kubernetes", "Team A")
    assert "--data-volume must be a name of Kubernetes" in refused(capsys, "compile", "--data-volume", "a b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "loop", "notes.txt"]


def test_out_with_other_peoples_files_is_refused_and_kept(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    assert "holds other files than an earlier split result" in refused(capsys, "split", "digits", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_unknown_settings_are_refused(capsys, digits, tmp_path):
    search = ("search", "--split", digits, tmp_path / "out", "--set")
    line = refused(capsys, *search, "search.epoch=1")
    assert "search.epoch is not a setting (did you mean epochs?); known: " in line
    assert " epochs," in line
    assert "search.epochs" in refused(capsys, *search, "search.epochs=0")
    assert "serch.epochs=1" in refused(capsys, *search, "serch.epochs=1")
    assert "unknown recipe 'cifar'" in refused(capsys, "split", "digits", tmp_path / "out", "--recipe", "cifar")


def test_a_port_that_is_taken_is_refused(capsys, tmp_path):
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = refused(capsys, "ui", "--out", tmp_path, "--port", port)
    assert f"port {port} cannot be used (Address already in use); name another with --port" in line
    for port in (0, -1, 65536):
        assert f"--port {port} is out of range; from 1 to 65535" in refused(
            capsys, "ui", "--out", tmp_path, "--port", port
        )
    (tmp_path / "mlflow.db").write_text("mine")
    assert "mlflow.db is no database of MLflow" in refused(capsys, "ui", "--out", tmp_path)


def test_step_without_the_step_before_is_refused(capsys, structures, tmp_path):
    line = refused(capsys, "search", "--split", tmp_path, tmp_path / "out")
    assert "make one with `pfs split DATASET OUT`" in line
    assert "pfs run" in refused(capsys, "ui", "--out", tmp_path)
    assert "is not a folder" in refused(capsys, "report", tmp_path / "none", tmp_path / "out")
    assert Structure.load(structures / "structure.json").network == "pruned"


def test_an_address_for_a_folder_is_refused_and_nothing_is_made(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (("split", "digits", "s3://bucket/x"), ("run", "--out", "s3://bucket/x")):
        assert "s3:/bucket/x is an address; name a folder" in refused(capsys, *command).replace("/run is", " is")
    assert "cannot be made: File name too long" in refused(capsys, "run", "--out", "a" * 300)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["[1]", "null", "3", "["])
def test_a_damaged_list_of_digests_is_refused(capsys, digits, structures, tmp_path, content):
    shutil.copytree(digits, tmp_path / "split")
    (tmp_path / "split" / "complete.json").write_text(content)
    line = refused(capsys, "search", "--split", tmp_path / "split", tmp_path / "out")
    assert "complete.json is" in line


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "loop.html").symlink_to("loop.html")
    (tmp_path / "nowhere").symlink_to("none")
    for command in (("data", "check", "digits", "--html"), ("inspect", "resnet20", "--html")):
        assert "is a folder; name the file" in refused(capsys, *command, "folder.html")
        assert "loop.html is a link in a circle" in refused(capsys, *command, "loop.html")
        assert "notes.txt is a file, not a folder" in refused(capsys, *command, "notes.txt/x.html")
        assert "nowhere is a link that leads nowhere" in refused(capsys, *command, "nowhere/x.html")
        assert "File name too long" in refused(capsys, *command, f"{'a' * 300}.html")
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_that_is_a_link_in_a_circle_is_refused(capsys, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert "loop is a link in a circle" in refused(capsys, "split", "digits", tmp_path / "loop")


def test_a_report_is_refused_before_it_is_made(capsys, tmp_path):
    (tmp_path / "notes.txt").touch()
    assert "takes no name with / or :" in refused(capsys, "report", tmp_path, tmp_path / "out", "--register", "a/b")
    assert "notes.txt is a file" in refused(capsys, "report", tmp_path, tmp_path / "notes.txt")
    assert "set MLFLOW_TRACKING_URI" in refused(capsys, "report", tmp_path, tmp_path / "out", "--register", "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_expansion_by_nothing_is_refused(capsys):
    assert "model.expand: must be a number in [1.0, 8.0] (got 0.0)" in refused(
        capsys, "cost", "resnet20", "--expand", 0
    )


def test_a_look_at_runs_makes_no_file(capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text("[")
    assert main(["runs", "--out", str(tmp_path)]) == 0
    assert "mine  stopped" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["run.json"]


def test_folders_that_are_no_runs_are_refused_in_one_line(capsys, tmp_path):
    assert "none of the folders is a finished run" in refused(capsys, "compare", tmp_path / "a", tmp_path / "b")


def test_what_may_not_be_read_is_one_line_whatever_asks_for_it(capsys, digits, tmp_path, monkeypatch):
    """As where a folder is another user's: Python raises this also where it is asked what exists."""
    is_dir = Path.is_dir

    def deny(path):
        if str(path) == str(digits):
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr("pathlib.Path.is_dir", deny)
    line = refused(capsys, "search", "--model", "resnet20", "--split", digits, tmp_path / "gates")
    assert line == f"pfs: {digits} cannot be used: Permission denied"


def test_a_cache_that_may_not_be_read_is_done_without(capsys, tmp_path, monkeypatch):
    def deny(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("PFS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pathlib.Path.exists", deny)
    monkeypatch.setattr("pathlib.Path.mkdir", deny)
    assert main(["inspect", "resnet20", "--set", "model.width=4"]) == 0
    assert "proved: 12 of 12 groups" in capsys.readouterr().out


def test_names_of_files_are_shown_in_one_line(capsys, tmp_path):
    root = tree(tmp_path / "pets", *[f"{c}/{i}.png" for c in "ab" for i in range(5)])
    (root / "a" / "two\nlines\x1b[31m.png").write_bytes(b"broken")
    assert r"a/two\nlines\x1b[31m.png: the image cannot be decoded" in refused(
        capsys, "split", root, tmp_path / "split"
    )


@pytest.mark.parametrize(
    ("name", "meant"), [("cifar10", "CIFAR10"), ("MNIST", "MNIST"), ("fashionmnist", "FashionMNIST")]
)
def test_a_dataset_of_torchvision_is_hinted_at_by_its_own_name(capsys, tmp_path, name, meant):
    line = refused(capsys, "split", name, tmp_path / "split")
    assert f"(did you mean torchvision:{meant}?)" in line


def test_a_dry_run_refuses_the_folder_that_the_run_would(capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/runs"):
        dry, run = (refused(capsys, "run", *option, "--out", tmp_path / out) for option in (["--dry-run"], []))
        assert dry == run
