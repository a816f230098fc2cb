"""The recipes say what the paper says."""

import pytest

from pfs_core.errors import UserError
from pfs_core.recipes import RECIPES, Recipe, default_recipe, recipe


def test_the_papers_search():
    search = recipe("cifar-sfp").search
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


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_its_json_says(name):
    assert Recipe.parse(recipe(name).model_dump(mode="json"), name) == recipe(name)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UserError, match="unknown recipe 'fast'; known: cifar-sfp, cifar-official, demo"):
        recipe("fast")


def test_a_stage_takes_changes():
    stage = recipe("demo").stage("search", {"epochs": 3})
    assert stage == recipe("demo").search.model_copy(update={"epochs": 3})
    with pytest.raises(UserError, match=r"search\.epoch is not a setting"):
        recipe("demo").stage("search", {"epoch": 3})


def test_the_embedded_digits_have_their_own_default():
    assert default_recipe("digits") == "demo"
    assert default_recipe("/data/cifar10") == "cifar-sfp"
