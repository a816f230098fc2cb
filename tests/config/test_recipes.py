"""The recipes say what the paper says."""

from pathlib import Path

import pytest

from pfs_core.config.recipes import RECIPES, Recipe, default_recipe, recipe
from pfs_core.config.stages import RetrainConfig
from pfs_core.errors import UserError
from pfs_core.methods.registry import method_config

ROOT = Path(__file__).parents[2]


def test_the_papers_search():
    search = method_config(recipe("cifar-sfp"), {})
    assert (search.epochs, search.batch_size, search.lr, search.gamma, search.expand) == (10, 128, 0.01, 0.5, 1.25)
    assert recipe("cifar-sfp").split.validation == 5000


def test_the_papers_retraining():
    sfp = recipe("cifar-sfp").retrain
    assert (sfp.epochs, sfp.lr, sfp.factor, sfp.weight_decay, sfp.nesterov) == (200, 0.1, 0.2, 5e-4, True)
    assert [m * sfp.epochs for m in sfp.milestones] == [60, 120, 160]
    official = recipe("cifar-official").retrain
    assert (official.epochs, official.lr, official.factor, official.weight_decay) == (160, 0.1, 0.1, 1e-4)
    assert official.milestones == (0.5, 0.75)
    assert sfp.scratch_b
    assert official.scratch_b


@pytest.mark.parametrize("name", ["imagenet-mobilenet", "imagenet-resnet"])
def test_the_papers_imagenet(name):
    found = recipe(name)
    assert (found.split.validation_per_class, found.split.image_size) == (50, 224)
    search = method_config(found, {})
    assert (search.epochs, search.batch_size, search.gamma, search.lr) == (1, 100, 0.05, 0.01)
    assert (found.retrain.batch_size, found.retrain.momentum, found.retrain.nesterov) == (256, 0.9, False)
    assert (found.retrain.scratch_b, found.retrain.train_on_validation) == (True, True)
    for trained in (method_config(found, {"method": name}) for name in ("network_slimming", "amc")):  # as its ResNets
        assert (trained.epochs, trained.batch_size, trained.lr) == (90, 256, 0.1)
        assert [round(m * trained.epochs) for m in trained.milestones] == [30, 60]
    assert method_config(found, {"method": "amc"}).reward_rows == 3000


def test_the_papers_mobilenets():
    retrain = recipe("imagenet-mobilenet").retrain
    assert (retrain.epochs, retrain.lr, retrain.weight_decay, retrain.schedule) == (300, 0.05, 4e-5, "cosine")
    assert retrain.label_smoothing == 0


def test_the_papers_resnet_50():
    retrain = recipe("imagenet-resnet").retrain
    assert (retrain.epochs, retrain.lr, retrain.factor, retrain.weight_decay) == (90, 0.1, 0.1, 1e-4)
    assert [m * retrain.epochs for m in retrain.milestones] == [30, 60]
    assert retrain.label_smoothing == 0.1


def test_the_fast_recipe_is_a_first_look():
    fast = recipe("fast")
    search = method_config(fast, {})
    assert (search.epochs, fast.retrain.epochs, fast.retrain.scratch_b) == (5, 15, False)
    assert search.settled is not None
    assert not fast.retrain.train_on_validation


@pytest.mark.parametrize("name", RECIPES)
def test_every_list_of_recipes_has_it(name):
    files = ("docs/using.md", "pipelines/compress.py", "pipelines/pareto.py", "pipelines/compare.py")
    for file in files:
        assert name in (ROOT / file).read_text(), file


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"warmup_epochs": 3}, "retrain.warmup_epochs: must be less than the 3 epochs before the rate falls (got 3)"),
        ({"warmup_epochs": 2, "milestones": [0.5]}, "retrain.warmup_epochs: must be less than the 1.5 epochs before"),
        ({"warmup_epochs": -1}, "retrain.warmup_epochs: must be a number from 0 (got -1)"),
        ({"label_smoothing": 1}, "retrain.label_smoothing: must be a number in [0, 1) (got 1)"),
        ({"ema": 1}, "retrain.ema: must be None or a number in (0, 1) (got 1)"),
        ({"clip_norm": 0}, "retrain.clip_norm: must be None or a number above 0 (got 0)"),
        ({"accumulate": 0}, "retrain.accumulate: must be a whole number from 1 (got 0)"),
        (
            {"accumulate": 65},
            "retrain.accumulate: must leave at least 2 of batch_size's images to a micro-batch (got 65)",
        ),
        ({"validate_every": 0}, "retrain.validate_every: must be a whole number from 1 (got 0)"),
        ({"keep": "best"}, "retrain.keep: best needs a validation: set train_on_validation=false (got 'best')"),
        ({"keep": "first"}, "retrain.keep: must be last or best (got 'first')"),
    ],
)
def test_a_wrong_setting_of_the_retraining_is_one_line(changes, line):
    with pytest.raises(UserError) as refused:
        RetrainConfig(epochs=3).updated(changes, "retrain")
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


def test_a_warmup_may_last_beyond_milestones_that_the_schedule_does_not_have():
    cosine = RetrainConfig(epochs=4, milestones=(0.25,)).updated({"schedule": "cosine", "warmup_epochs": 2}, "retrain")
    assert cosine.warmup_epochs == 2


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_its_json_says(name):
    assert Recipe.parse(recipe(name).model_dump(mode="json"), name) == recipe(name)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(
        UserError, match="unknown recipe 'quick'; known: standard, cifar-sfp, cifar-official, imagenet-mobilenet,"
    ):
        recipe("quick")
    with pytest.raises(UserError, match=r"unknown recipe 'cifar-spf' \(did you mean cifar-sfp\?\); known: "):
        recipe("cifar-spf")


def test_a_stage_takes_changes():
    stage = method_config(recipe("demo"), {"epochs": 3})
    assert stage == method_config(recipe("demo"), {}).model_copy(update={"epochs": 3})
    with pytest.raises(UserError, match=r"search\.epoch is not a setting"):
        method_config(recipe("demo"), {"epoch": 3})


def test_the_embedded_digits_have_their_own_default():
    assert default_recipe("digits") == "demo"
    assert default_recipe("/data/cifar10") == "standard"


def test_the_papers_recipes_cut_as_the_paper_and_the_others_for_the_runtime():
    papers = {"cifar-sfp", "cifar-official", "imagenet-mobilenet", "imagenet-resnet"}
    for name in RECIPES:
        paper = name in papers
        assert recipe(name).extract.blocks == (1 if paper else "auto")
        for method in ("pfs", "uniform", "random"):
            assert method_config(recipe(name), {"method": method}).expand_stream == (None if paper else 1.0)


def test_a_recipe_with_fewer_epochs_has_a_shorter_warmup():
    fast = recipe("fast")
    for epochs in (1, 1.0):  # Kubeflow passes 1 as 1.0
        assert fast.stage("retrain", {"epochs": epochs}).warmup_epochs == pytest.approx(1 / 15)
    assert fast.stage("retrain", {"epochs": 2}).warmup_epochs == fast.retrain.warmup_epochs == 1
    with pytest.raises(UserError, match="warmup_epochs: must be less than the 1 epochs"):
        fast.stage("retrain", {"epochs": 1, "warmup_epochs": 1})
    for epochs in (0, "ten", True, None):
        with pytest.raises(UserError, match="epochs: must be a whole number from 1"):
            fast.stage("retrain", {"epochs": epochs})


@pytest.mark.parametrize(("episodes", "warmup"), [(1, 1), (12, 4), (20, 6), (30, 20)])
def test_fewer_episodes_of_amc_have_a_shorter_warmup(episodes, warmup):
    search = method_config(recipe("demo"), {"method": "amc", "episodes": episodes})
    assert (search.episodes, search.warmup_episodes) == (episodes, warmup)
    with pytest.raises(UserError, match="must be at most search.episodes"):
        method_config(recipe("demo"), {"method": "amc", "episodes": 5, "warmup_episodes": 6})
