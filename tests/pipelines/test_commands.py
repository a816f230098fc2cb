"""The commands that print, and how fast the help is to come."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pfs_components.base import check_image
from pfs_pipelines.cli import main
from pfs_pipelines.model_commands import listed
from pfs_pipelines.packages import PIPELINES
from PIL import Image

from pfs_core.channels import Refuted
from pfs_core.channels.export import count_macs
from pfs_core.config.recipes import RECIPES
from pfs_core.config.request import DEFAULT_METHOD, CompressRequest
from pfs_core.errors import UserError
from pfs_core.methods.registry import METHODS
from pfs_core.models import MODELS, build_model
from pfs_core.storage.artifacts import write_json
from pfs_core.structure import Structure


def printed(capsys, *argv):
    """What a command prints."""
    assert main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "shape", "macs", "params"),
    [
        ("resnet20", "3x32x32", 40813184, 272474),
        ("resnet56", "3x32x32", 125747840, 855770),
        ("vgg16", "3x32x32", 313201664, 14724042),
        ("mobilenet_v2", "3x224x224", 300774272, 3504872),
        ("torchvision:resnet18", "3x224x224", 1814073344, 11689512),
    ],
)
def test_cost_is_the_published_one(capsys, model, shape, macs, params):
    cost = json.loads(printed(capsys, "cost", model, "--json"))
    assert (cost["input"], cost["macs"], cost["params"]) == (shape, macs, params)


def test_a_network_of_ones_own(capsys, nets):
    flags = ("--input", "2x6x5", "--set", "model.width=3")
    assert printed(capsys, "cost", "nets:build", *flags) == "nets:build on 2x6x5: 1,650 MACs, 100 parameters\n"
    groups = {group["name"]: group for group in json.loads(printed(capsys, "inspect", "nets:build", *flags, "--json"))}
    assert (groups["conv"]["width"], groups["conv"]["prunable"]) == (3, True)
    assert printed(capsys, "cost", "nets:shaped").startswith("nets:shaped on 1x8x8: ")


def test_a_spec_file_is_a_model_and_flags_win_over_it(capsys, nets):
    spec = nets.with_name("net.yaml")
    spec.write_text("{name: 'nets:build', num_classes: 4, input_shape: [2, 6, 5], expand: 2, kwargs: {width: 3}}")
    at_width_6 = "nets:build on 2x6x5: 3,264 MACs, 148 parameters\n"
    assert printed(capsys, "cost", spec) == at_width_6
    assert printed(capsys, "cost", spec, "--expand", "1", "--set", "model.width=6") == at_width_6
    assert "on 2x9x9: " in printed(capsys, "cost", spec, "--input", "2x9x9")
    assert " fc" in printed(capsys, "inspect", spec)


def test_inspect_says_who_writes_and_reads_a_group_and_how_much_can_be_pruned(capsys):
    text = printed(capsys, "inspect", "resnet20")
    assert "layer1.0.conv1          16  prunable\n" in text
    assert "reads layer1.0.conv2\n" in text
    assert "norm layer1.0.bn1 (gate)\n" in text
    assert "frozen: residual stream, joined in layer1.0 (add) (policy all prunes it)" in text
    assert "9 of 14 channel groups can be pruned; " in text
    assert text.endswith("98.3% of the 40,813,184 MACs\nproved: 12 of 12 groups that may change\n")


def test_inspect_says_which_residual_branches_can_be_left_out(capsys):
    text = printed(capsys, "inspect", "resnet20")
    assert text.count(" can be left out: ") == 7
    assert "residual branch layer1.0.bn2 can be left out: layer1.0.conv1\n" in text
    groups = {group["name"]: group for group in json.loads(printed(capsys, "inspect", "resnet20", "--json"))}
    assert groups["layer1.0.conv1"]["branch"] == "layer1.0.bn2"
    assert groups["layer2.0.conv1"]["branch"] is None


def test_inspect_says_why_a_residual_branch_stays(capsys, monkeypatch):
    refuted = Refuted(needed={"layer1.0.bn2": "the rest computes something else"})
    monkeypatch.setattr("pfs_core.structure.refuted_once", lambda model, graph: refuted)
    text = printed(capsys, "inspect", "resnet20")
    assert "residual branch layer1.0.bn2 stays: the rest computes something else\n" in text
    assert text.count(" can be left out: ") == 6


def test_inspect_draws(capsys, tmp_path):
    page, picture = tmp_path / "new" / "groups.html", tmp_path / "groups.png"
    printed(capsys, "inspect", "resnet20", "--policy", "all", "--html", page, "--png", picture)
    text = page.read_text()
    assert "<svg" in text
    assert "layer1.0.bn1 (gate)" in text
    assert "src=" not in text
    assert "<script" not in text
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 800


def test_inspect_draws_the_same_page_again(tmp_path):
    for name in ("a.html", "b.html"):
        assert main(["inspect", "vgg11", "--html", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize("flag", ["--html", "--png"])
def test_a_picture_of_another_kind_is_refused(capsys, flag):
    assert main(["inspect", "resnet20", flag, "groups.svg"]) == 2
    assert f"the file's name must end in .{flag[2:]}" in capsys.readouterr().err


def test_search_takes_a_spec_file(digits, nets):
    spec, out = nets.with_name("net.yaml"), nets.with_name("gates")
    spec.write_text("{name: 'nets:build', num_classes: 4, kwargs: {width: 3, stages: [1]}}")
    flags = ("--set", "model.stages=[1.0, 2.0]", "--set", "search.epochs=1", "--set", "search.expand=2")
    assert main(["search", "--model", str(spec), "--split", str(digits), *flags, str(out)]) == 0
    model = json.loads((out / "search.json").read_text())["model"]
    assert (model["name"], model["kwargs"]) == ("nets:build", {"width": 3, "stages": [1, 2]})
    assert (model["num_classes"], model["input_shape"], model["expand"]) == (10, [1, 8, 8], 2)


def test_cost_of_a_structure_file_is_the_one_it_states(capsys, structures):
    structure = Structure.load(structures / "structure.json")
    flags = ("--input", "1x8x8", "--set", "model.width=4", "--widths", structures / "structure.json", "--json")
    cost = json.loads(printed(capsys, "cost", "resnet20", *flags))
    assert (cost["macs"], cost["params"]) == (structure.cost.macs, structure.cost.params)


def test_a_structure_file_says_for_which_images_classes_and_settings_its_widths_are(capsys, structures):
    path = structures / "structure.json"
    structure = Structure.load(path)
    cost = json.loads(printed(capsys, "cost", "resnet20", "--widths", path, "--json"))
    assert (cost["input"], cost["macs"], cost["params"]) == ("1x8x8", structure.cost.macs, structure.cost.params)
    larger = json.loads(printed(capsys, "cost", "resnet20", "--widths", path, "--input", "1x16x16", "--json"))
    assert (larger["input"], larger["params"]) == ("1x16x16", structure.cost.params)


def test_what_is_written_down_of_the_zoo_is_so():
    rows = []
    for name, entry in MODELS.items():
        with torch.device("meta"):
            model = build_model(name).eval()
            macs = count_macs(model, torch.empty(1, *entry.input_shape))
        shape, text = "x".join(map(str, entry.input_shape)), entry.load().__doc__.splitlines()[0]
        params = sum(parameter.numel() for parameter in model.parameters())
        rows.append({"model": name, "input": shape, "params": params, "macs": macs, "description": text})
    assert listed("zoo") == rows


@pytest.mark.parametrize("command", [("models",), ("cost", "resnet20"), ("--help",), ("run", "--help")])
def test_what_needs_no_torch_does_not_import_it(command):
    code = "import sys; from pfs_pipelines.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'mlflow', 'kfp', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_published_cost_is_what_the_graph_counts(capsys):
    said = printed(capsys, "cost", "resnet20")
    assert said == printed(capsys, "cost", "resnet20", "--input", "3x32x32")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("rnu",), "pfs: unknown command 'rnu' (did you mean run?); known: run, ui, "),
        (("runs", "clsoe"), "pfs runs: unknown command 'clsoe' (did you mean close?); known: close\n"),
    ],
)
def test_a_command_that_does_not_exist_is_told_from_those_that_do(capsys, given, says):
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(says)


def test_models_lists_the_zoo(capsys):
    rows = json.loads(printed(capsys, "models", "--json"))
    sizes = {row["model"]: (row["input"], row["params"], row["macs"]) for row in rows}
    assert list(sizes) == list(MODELS)
    assert sizes["vgg16"] == ("3x32x32", 14724042, 313201664)
    assert sizes["mobilenet_v1"] == ("3x224x224", 4231976, 568740352)
    assert sizes["resnet50"] == ("3x224x224", 25557032, 4089184256)


def test_models_of_timm_are_those_that_were_proved(capsys):
    rows = {row["model"]: row for row in json.loads(printed(capsys, "models", "--timm", "--json"))}
    assert rows["timm:resnet18"]["macs"] == 1814073344
    said = "1,814,073,344 MACs on 3x224x224  92% of the MACs prunable, 12 of 12 groups proved"
    assert said in printed(capsys, "models", "--timm")


def test_inspect_says_why_a_group_is_frozen(capsys):
    text = printed(capsys, "inspect", "resnet20")
    assert "frozen: residual stream" in text
    assert "frozen: the network's output" in text
    assert "norm layer1.0.bn1 (gate)" in text


def test_help_imports_nothing_heavy():
    heavy = "torch", "numpy", "kfp", "mlflow", "pydantic"
    check = (
        f"import sys, pfs_pipelines.cli; pfs_pipelines.cli.parser(); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_table_of_methods_is_read_without_torch():
    check = "import sys, pfs_core.methods.registry; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_help_names_every_recipe_and_every_method(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split()).replace("- ", "-")  # lines also end at hyphens
    assert f"{', '.join(METHODS)}; default {DEFAULT_METHOD}" in text
    assert f"{', '.join(RECIPES)}; default by dataset" in text


def test_compile_writes_every_package(capsys, tmp_path):
    paths = printed(capsys, "compile", "-o", tmp_path / "packages", "--data-volume", "pfs-data").splitlines()
    assert [Path(path).name for path in paths] == [f"{name}.yaml" for name in PIPELINES]
    assert all("pfs-data" in Path(path).read_text() for path in paths)


def test_compile_names_the_image(tmp_path):
    command = (
        sys.executable,
        "-m",
        "pfs_pipelines.cli",
        "compile",
        "-o",
        str(tmp_path),
        "--image",
        "team/pfs-python:7",
    )
    subprocess.run(command, check=True, capture_output=True)
    assert "image: team/pfs-python:7" in (tmp_path / "compress.yaml").read_text()


@pytest.mark.parametrize("image", ["team/pfs-python", "team/pfs-python:latest", "host:5000/pfs-python", "team/pfs:7"])
def test_an_image_that_the_cache_cannot_tell_from_another_is_refused(image):
    with pytest.raises(UserError, match=r"a tag of its own for every build.*pfs-python:\d"):
        check_image(image)


@pytest.mark.parametrize(
    "image",
    [
        *("reg/pfs-python:0.1.0 x", "reg/pfs-python:0.1.0\n", "reg/pfs-python@sha256:zz"),
        *("reg/pfs-Python:1", "reg//pfs-python:1", "reg/pfs-python:", ":1", ""),
    ],
)
def test_what_names_no_image_is_refused(image):
    with pytest.raises(UserError, match="is no name of an image"):
        check_image(image)


def test_an_image_is_told_by_its_tag_or_digest():
    check_image("Registry.example.com/team/deep_er/pfs-python:v1.0_2@sha256:" + 64 * "a")
    check_image("host:5000/team/pfs-python:0.1.0")
    check_image("[fd00::1]:5000/pfs-python:1")
    check_image("team/pfs-python@sha256:" + 64 * "0")


@pytest.mark.parametrize(
    ("given", "networks"),
    [
        ((), ["pruned", "dense"]),
        (("--compare", "none"), ["pruned"]),
        (("--compare", "uniform, dense"), ["pruned", "uniform", "dense"]),
        (("--set", "retrain.start=inherited"), ["pruned"]),
    ],
)
def test_the_dense_network_is_trained_too_unless_the_pruned_one_is_fine_tuned(given, networks, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("pfs_pipelines.run.run_pipeline", lambda request, *_: asked.append(request.networks) or 0)
    assert main(["run", "--out", str(tmp_path), *given]) == 0
    assert asked == [networks]


@pytest.mark.parametrize(("recipe", "taken"), [("demo", "standard"), ("fast", "fast")])
def test_again_on_another_dataset_takes_its_recipe_unless_one_was_chosen(recipe, taken, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("pfs_pipelines.run.run_pipeline", lambda request, *_: asked.append(request.recipe) or 0)
    before = CompressRequest(model="resnet20", dataset="digits", budgets=["macs=0.5"], recipe=recipe)
    write_json(tmp_path / "run.json", {"arguments": before.arguments()})
    assert main(["run", "--again", str(tmp_path), "--dataset", "s3://bucket/images"]) == 0
    assert asked == [taken]
