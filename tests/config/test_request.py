"""A request is the same to everybody who asks: the command line, a pipeline, the registry and a run's folder."""

import json

import pytest
from pfs_components import check_request
from pfs_pipelines.cli import main
from pfs_pipelines.run_folders import new_folder

from pfs_core.config.overrides import STAGES
from pfs_core.config.request import CompressRequest
from pfs_core.errors import UserError
from pfs_core.registry.request import Request

ASKED = CompressRequest(
    model="resnet20",
    dataset="digits",
    budgets=["macs=0.5"],
    recipe="demo",
    seed=3,
    networks=["pruned"],
    registered_model="small",
    model_settings={"width": 4},
    search_settings={"method": "network_slimming", "epochs": 2, "lr": 0.5},
)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """``pfs run`` whose pipeline fails at once; returns the folder of the run."""
    monkeypatch.setattr("pfs_pipelines.run.follow", lambda *arguments: (1, ""))

    def start(*flags):
        assert main(["run", "--out", str(tmp_path / "runs"), *flags]) == 1
        (folder,) = (tmp_path / "runs").iterdir()
        return folder

    return start


def test_the_run_json_of_a_run_is_what_was_asked_for(run):
    flags = ("--recipe", "demo", "--seed", "3", "--compare", "none", "--register", "small")
    settings = ("model.width=4", "search.method=network_slimming", "search.epochs=2", "search.lr=0.5")
    folder = run(*flags, *(f"--set={setting}" for setting in settings))
    assert CompressRequest.load(folder / "run.json") == ASKED


def test_the_run_json_has_the_arguments_of_the_pipeline(run):
    arguments = json.loads((run() / "run.json").read_text())["arguments"]
    assert arguments == {
        "model": "resnet20",
        "dataset": "digits",
        "budget": "macs=0.5",
        "recipe": "demo",
        "seed": 0,
        "networks": ["pruned", "dense"],
        "registered_model": "",
        "model_settings": {},
        **{f"{stage}_settings": {} for stage in STAGES},
    }


def test_a_run_asks_again_for_what_another_was_asked_for(run, tmp_path):
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "run.json").write_text(json.dumps({"arguments": ASKED.arguments()}))
    changes = ("--set=search.epochs=7", "--set=extract.floor=0.1", "--budget", "macs=0.3", "--seed", "0")
    folder = run("--again", str(earlier), *changes)
    settings = {"search_settings": {**ASKED.search_settings, "epochs": 7}, "extract_settings": {"floor": 0.1}}
    assert CompressRequest.load(folder / "run.json") == ASKED.model_copy(
        update={"budgets": ["macs=0.3"], "seed": 0, **settings}
    )


def test_nothing_changed_is_the_same_request(run, tmp_path):
    earlier = run("--recipe", "demo", "--seed", "3", "--compare", "none", "--set", "model.width=4")
    before = CompressRequest.load(earlier / "run.json")
    (tmp_path / "runs").rename(tmp_path / "earlier")
    assert CompressRequest.load(run("--again", str(tmp_path / "earlier" / earlier.name)) / "run.json") == before


def test_a_folder_without_a_run_cannot_be_asked_for_again(tmp_path, capsys):
    assert main(["run", "--again", str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().err


def test_a_request_survives_its_arguments():
    assert CompressRequest.from_arguments(ASKED.arguments()) == ASKED


def test_a_request_for_several_budgets_has_no_arguments_for_compress():
    with pytest.raises(ValueError, match="too many values"):
        ASKED.model_copy(update={"budgets": ["macs=0.5", "macs=0.3"]}).arguments()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "is not the run.json of a run"),
        ([], "is not the run.json of a run"),
        ({"arguments": {"dataset": "digits", "budget": "macs=0.5"}}, r"run\.json\.model: is missing"),
        ({"arguments": {**ASKED.arguments(), "seed": -1}}, r"run\.json\.seed: .*\(got -1\)"),
        ({"arguments": {**ASKED.arguments(), "seed": True}}, r"run\.json\.seed: must be a whole number .*\(got True\)"),
        ({"arguments": {**ASKED.arguments(), "budget": 3}}, r"run\.json\.budgets\.0: must be a text \(got 3\)"),
        ({"arguments": {**ASKED.arguments(), "model": ""}}, r"run\.json\.model: must be a text that is not empty"),
        (
            {"arguments": {**ASKED.arguments(), "networks": "dense"}},
            r"networks: must be a list of texts",
        ),
        ({"arguments": {**ASKED.arguments(), "sed": 1}}, r"run\.json\.sed is not a setting"),
    ],
)
def test_what_is_no_request_is_refused(content, says, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=says):
        CompressRequest.load(tmp_path / "run.json")


def test_a_run_without_run_json_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        CompressRequest.load(tmp_path / "run.json")


def test_the_first_step_and_the_command_line_ask_for_the_same(monkeypatch):
    asked = []
    monkeypatch.setattr("pfs_core.steps.check", lambda request, opens_run, train_job: asked.append(request) or "")
    arguments = ASKED.model_dump(exclude={"registered_model"})
    as_kubeflow_passes_them = {
        "model_settings": {"width": 4.0},
        "search_settings": {**ASKED.search_settings, "epochs": 2.0},
    }
    check_request.python_func(**arguments | as_kubeflow_passes_them)
    assert asked == [ASKED.model_copy(update={"registered_model": ""})]
    assert isinstance(asked[0].model_settings["width"], int)
    assert isinstance(asked[0].search_settings["epochs"], int)


def test_a_request_in_the_registry_asks_for_the_same():
    tags = {"pfs.model": "resnet20", "pfs.dataset": "digits", "pfs.seed": "3", "pfs.model_settings": '{"width": 4}'}
    given = Request.of_tags({**tags, "pfs.min_speedup": "1.5"}, "models:/net/1")
    expected = CompressRequest(
        model="resnet20", dataset="digits", budgets=["macs=0.5"], seed=3, model_settings={"width": 4}
    )
    assert given.to_compress_request() == expected


def test_a_request_in_the_registry_that_names_a_method_is_refused():
    """Only a result has that tag, beside its accuracy; a request would be compressed by another method in silence."""
    tags = {"pfs.model": "resnet20", "pfs.dataset": "digits", "pfs.method": "amc"}
    with pytest.raises(
        UserError, match=r"models:/net/1: pfs.method is not a tag of a request \(got 'amc'\); the method"
    ):
        Request.of_tags(tags, "models:/net/1")
    assert Request.of_tags({**tags, "pfs.test_accuracy": "0.9"}, "models:/net/1").model == "resnet20"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_its_settings(stage):
    request = CompressRequest.parse(
        {"model": "m", "dataset": "d", "budgets": [], **{f"{stage}_settings": {"a": 1}}}, "request"
    )
    assert [name for name in STAGES if request.stage_settings(name)] == [stage]


def test_the_folder_of_a_run_is_named_after_what_differs(tmp_path):
    changes = [
        {},
        {"seed": 4},
        {"budgets": ["macs=0.3"]},
        {"model": "vgg11"},
        {"dataset": "/data/flowers"},
        {"search_settings": {}},
    ]
    folders = [new_folder(tmp_path, ASKED.model_copy(update=change)).name.rsplit("-", 2)[0] for change in changes]
    assert folders == [
        "resnet20-digits-macs0.5-network_slimming-seed3",
        "resnet20-digits-macs0.5-network_slimming-seed4",
        "resnet20-digits-macs0.3-network_slimming-seed3",
        "vgg11-digits-macs0.5-network_slimming-seed3",
        "resnet20-flowers-macs0.5-network_slimming-seed3",
        "resnet20-digits-macs0.5-seed3",
    ]


@pytest.mark.parametrize("name", ["budgets", "search_budget", "one_search"])
def test_what_a_run_takes_no_argument_for_is_refused(tmp_path, name):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"arguments": {**ASKED.arguments(), name: ["macs=0.3"]}}))
    with pytest.raises(UserError, match=f"run.json: {name} is no argument of a run, .* give budget alone"):
        CompressRequest.load(path)
