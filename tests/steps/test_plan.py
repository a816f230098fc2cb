"""What a run is said to take is what it does."""

import json

import pytest
from pfs_pipelines.cli import main

from pfs_core.config.request import CompressRequest
from pfs_core.data.split import split_dataset
from pfs_core.errors import UserError
from pfs_core.runtime.logs import COLUMNS
from pfs_core.steps.plan import plan, where_threads_wait
from pfs_core.structure import unexpanded_graph
from pfs_core.training.rate import TrainingRate
from tests.data.folders import images, png, write


def request(**changes):
    values = {"model": "resnet20", "dataset": "digits", "budgets": ["macs=0.5"], "recipe": "demo", **changes}
    return CompressRequest.parse(values, "request")


@pytest.fixture(autouse=True)
def rate(monkeypatch):
    """A thousand images a second, and a MiB each, on a machine that nobody else uses."""
    monkeypatch.setattr("pfs_core.steps.plan.disturbance", lambda *arguments: {"others": 0.0})
    monkeypatch.setattr("pfs_core.steps.plan.training_rate", lambda *arguments: TrainingRate(1000.0, 2**20))


def test_steps_of_the_digits(tmp_path):
    planned = plan(request(networks=["pruned", "dense"], retrain_settings={"scratch_b": True}))
    info = split_dataset("digits", tmp_path / "split")
    names = [(step.name, step.what.split(",")[0]) for step in planned.steps]
    assert [name for name, _ in names] == ["split", "search", "extract", "retrain", "retrain", "benchmark", "report"]
    assert planned.steps[0].what == (
        f"{info.rows['train']:,} train, {info.rows['validation']} validation, {info.rows['test']} test of 10 classes"
    )
    pruned, dense = planned.steps[3:5]
    assert (pruned.what, dense.what) == (
        f"pruned, 32 epochs of {info.rows['train']:,} images",  # of half the MACs each
        f"dense, 16 epochs of {info.rows['train']:,} images",
    )
    assert pruned.seconds == dense.seconds == pytest.approx(16 * info.rows["train"] / 1000)
    assert "pfs, 30 epochs" in planned.steps[1].what
    assert 30 * info.rows["train"] / 1000 < planned.steps[1].seconds < 55 * info.rows["train"] / 1000
    assert planned.steps[5].seconds == 3 * 9  # three runtimes on one thread, 8 seconds and 1 of warm-up
    lines = planned.lines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "resnet20 on digits to macs=0.5, recipe demo, seed 0"
    assert lines[-1].startswith("about 0:0")
    assert " 67 MiB of memory for training, " in lines[-1]  # 64 images, and three copies of the weights


@pytest.mark.parametrize(
    ("budget", "what", "seconds"),
    [
        ("macs=0.5", "macs=0.5 of 2,532,992 MACs", 2),
        ("params=0.5", "params=0.5 of 272,186 parameters", 2),
        ("params=136093", "params=136093 of 272,186 parameters", 2),
        ("latency=0.5", "latency=0.5 of the time here, measured", 42),
    ],
)
def test_a_budget_is_in_its_own_unit(budget, what, seconds):
    steps = plan(request(budgets=[budget], networks=["pruned"], retrain_settings={"scratch_b": True})).steps
    assert (steps[2].what, steps[2].seconds) == (what, seconds)
    assert steps[3].what.startswith("pruned, 32 epochs ")


@pytest.mark.parametrize(
    ("settings", "what", "images"),
    [
        ({"pretrain_epochs": 20}, "20 + 30 epochs", 50 * 1294),
        ({"draws": 3}, "3 x 30 epochs", 90 * 1294),
        ({"method": "network_slimming", "epochs": 4, "rounds": 5}, "5 x 4 epochs", 20 * 1294),
        ({"method": "amc", "epochs": 4, "episodes": 300}, "4 epochs, 300 episodes", 4 * 1294 + 100 * (144 + 512)),
        ({"method": "uniform"}, "nothing to learn", 0),
    ],
)
def test_a_search_takes_as_long_as_its_method_has_to_do(settings, what, images):
    planned = plan(request(search_settings=settings))
    step = planned.steps[1]
    assert any(step.what in line for line in planned.lines())
    said, _, wider = step.what.partition(" at ")
    assert said == f"{settings.get('method', 'pfs')}, {what}"
    assert step.seconds - 2 == pytest.approx(images * float(wider.partition("x")[0] or 0) / 1000, rel=0.01)


def test_a_budget_that_no_structure_is_within_is_known_once_the_images_are(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.parquet", [png(image) for image in images(40)], [0, 1] * 20)
    with pytest.raises(UserError, match="budget macs=1000 cannot be reached; the smallest structure has"):
        plan(request(dataset=str(tmp_path / "data"), budgets=["macs=1000"]))


def on_a_machine(monkeypatch, cores, threads):
    monkeypatch.setattr("pfs_core.steps.plan.os.cpu_count", lambda: cores)
    monkeypatch.setattr("pfs_core.steps.plan.torch.get_num_threads", lambda: threads)


def test_threads_that_share_a_core_with_others_are_said(monkeypatch):
    on_a_machine(monkeypatch, 2, 2)
    monkeypatch.setattr("pfs_core.steps.plan.disturbance", lambda *arguments: {"others": 1.5})
    first, second = plan(request()).lines()[-2:]
    assert first == "other processes use 1.5 of 2 cores; 2 threads will wait for each other:"
    assert second == "OMP_NUM_THREADS=1 may be many times as fast"
    on_a_machine(monkeypatch, 128, 128)
    assert max(map(len, where_threads_wait(127.9))) <= COLUMNS


@pytest.mark.parametrize(("cores", "threads", "others"), [(2, 1, 2.0), (2, 2, 0.1), (16, 8, 6.0)])
def test_threads_with_a_core_each_are_left_alone(cores, threads, others, monkeypatch):
    on_a_machine(monkeypatch, cores, threads)
    assert where_threads_wait(others) == []


def test_what_does_not_fit_in_memory_is_known_first(monkeypatch):
    monkeypatch.setattr("pfs_core.steps.plan.memory_size", lambda device: 2**26)
    with pytest.raises(UserError, match=r"on 64 images takes 0.1 GiB .* there are 0.1; lower retrain.batch_size"):
        plan(request())
    plan(request(retrain_settings={"accumulate": 2}))


def test_images_of_files_are_as_the_split_has_them(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.parquet", [png(image) for image in images(40)], [i % 2 for i in range(40)])
    for number, settings in enumerate(({}, {"channels": 1}, {"image_size": 16}, {"image_size": "16x24"})):
        asked = request(dataset=str(tmp_path / "data"), recipe="fast", split_settings=settings)
        out = tmp_path / f"split-{number}"
        assert main(["split", asked.dataset, str(out), *(f"--set=split.{k}={v}" for k, v in settings.items())]) == 0
        info = json.loads((out / "split.json").read_text())
        planned = plan(asked)
        macs = unexpanded_graph_of(asked, info).cost().macs
        assert planned.steps[2].what == f"macs=0.5 of {macs:,} MACs"


def unexpanded_graph_of(asked, info):
    from pfs_core.config.spec import ModelSpec

    fields = {"name": asked.model, "input_shape": tuple(info["input_shape"]), "num_classes": len(info["class_names"])}
    return unexpanded_graph(ModelSpec(**fields))


def test_a_dry_run_writes_nothing_and_says_what_it_would_go_on_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("resnet20 on digits")
    assert not any(line.startswith("goes on") for line in lines)
    assert list(tmp_path.iterdir()) == []
    begun = tmp_path / "pfs-runs" / "begun"
    (begun / "steps").mkdir(parents=True)
    (begun / "run.json").write_text(json.dumps({"arguments": request(networks=["pruned", "dense"]).arguments()}))
    assert main(["run", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "goes on in pfs-runs/begun, where this run was stopped"
    assert main(["run", "--dry-run", "--budget", "macs=0.001"]) == 2


def test_a_search_of_several_draws_takes_as_many_times_as_long():
    one, three = (plan(request(search_settings={"draws": draws})).steps[1] for draws in (1, 3))
    assert three.what == one.what.replace("pfs, ", "pfs, 3 x ")
    assert three.seconds - 2.0 == pytest.approx(3 * (one.seconds - 2.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency_settings": {"batches": [1, 10**9]}}, r"latency.batches: memory holds at most .* images of 1x8x8 at"),
        ({"retrain_settings": {"batch_size": 10**9}}, "lower retrain.batch_size"),
        (
            {"split_settings": {"validation_per_class": 100_000}},
            "split.validation_per_class is 100000, but class '0' has",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_limit(changes, message):
    with pytest.raises(UserError, match=message):
        plan(request(**changes))


def test_a_network_whose_training_does_not_fit_is_not_made(monkeypatch):
    monkeypatch.setattr("pfs_core.steps.plan.memory_size", lambda device: 2**20)
    with pytest.raises(UserError, match="training resnet20 takes 0.0 GiB of memory for its weights alone"):
        plan(request())
