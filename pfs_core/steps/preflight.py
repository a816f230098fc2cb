"""What can be said of a request before anything is started."""

from pfs_core.config.overrides import STAGES, Settings, recipe_for, whole_numbers
from pfs_core.config.request import CompressRequest
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data.open import check_dataset
from pfs_core.errors import UserError, did_you_mean
from pfs_core.expected import shown
from pfs_core.methods.registry import METHODS, Method, method_config
from pfs_core.models import check_model_size
from pfs_core.steps.foreseen import check_foreseen
from pfs_core.storage import open_storage
from pfs_core.structure import FILES
from pfs_core.trainjob.manifest import TrainJob, manifest

LONGEST_NAME = 256
"""The most characters of a name in MLflow's model registry, as its database has them."""


def check(request: CompressRequest) -> None:
    """Check that a request can be carried out, in some seconds and without reading images.

    Raises:
        UserError: something is wrong with it.
    """
    check_settings(request)
    check_model_size(ModelSpec.parse({"name": request.model, "kwargs": request.model_settings}, "model"))
    check_dataset(request.dataset)
    check_foreseen(request)


def check_settings(request: CompressRequest) -> None:
    """Check what needs neither the network's code nor the dataset: recipe, settings, budgets and names.

    Raises:
        UserError: something is wrong with it.
    """
    recipe = recipe_for(request.recipe, request.dataset)
    stages = {stage: recipe.stage(stage, request.stage_settings(stage)) for stage in STAGES if stage != "search"}
    method = METHODS[method_config(recipe, request.search_settings).method]
    inherits = stages["retrain"].start == "inherited"
    if inherits and not method.trains:
        training = " or ".join(other.name for other in METHODS.values() if other.trains)
        raise UserError(
            f"retrain.start=inherited starts from trained weights, and search.method={method.name} trains none; "
            f"choose {training}, or leave it out"
        )
    _check_budgets(request, method)
    check_registered_name(request.registered_model)
    _check_networks(request.networks, inherits)


def check_train_job(settings: Settings) -> TrainJob:
    """Check the settings of a TrainJob, which may be empty otherwise; UserError says what is wrong."""
    job = TrainJob.parse(whole_numbers(dict(settings)), "train_job")
    open_storage(job.shared)
    return job


def check_manifest(settings: Settings) -> None:
    """Check that a TrainJob can be made of settings in the environment of this process; UserError says why not."""
    job = check_train_job(settings)
    manifest(job, "pfs-retrain", job.shared)


def _check_budgets(request: CompressRequest, method: Method) -> None:
    if not request.budgets:
        raise UserError('no budget is given; give at least one, e.g. ["macs=0.5"]')
    budgets = [Budget.from_text(text) for text in request.budgets]
    for i, budget in enumerate(budgets):
        if budget in budgets[:i]:
            raise UserError(f"budget {budget} is given twice")
    if request.one_search:
        target = Budget.from_text(request.search_budget)
        if not method.any_budget and budgets != [target]:
            raise UserError(
                f"search.method={method.name} finds widths for {target} alone; the pipeline compare searches for each"
            )


def check_registered_name(name: str) -> None:
    """Check a name for MLflow's model registry; an empty one is made of the model's."""
    if any(sign in name for sign in "/:"):
        raise UserError(f"the model registry takes no name with / or : in it ({name!r}); choose another")
    if name.startswith("..") or name == ".":
        raise UserError(f"the model registry takes no name that begins with .. ({shown(name)}); choose another")
    if name and (name.strip(" .") == "" or len(name) > LONGEST_NAME or not name.isprintable()):
        raise UserError(
            f"the model registry takes names of 1 to {LONGEST_NAME} characters that can be seen ({shown(name)}); "
            "choose another"
        )


def _check_networks(networks: list[str], inherits: bool) -> None:
    """Check the names of the networks to train; ``inherits`` says that the pruned one is fine-tuned."""
    for i, network in enumerate(networks):
        if network in networks[:i]:
            raise UserError(f"network {network!r} is given twice; give each once")
        if network not in FILES:
            hint = did_you_mean(network, FILES)
            raise UserError(f"unknown network {network!r} to train{hint}; known: {', '.join(FILES)}")
    if inherits and networks != ["pruned"]:
        raise UserError(
            'retrain.start=inherited fine-tunes the pruned network: networks must be ["pruned"] '
            "(pfs run: --compare none; pareto and compare always train dense, so take compress); train dense and "
            "uniform in a run of their own"
        )
    if "pruned" not in networks:
        raise UserError(f'networks {networks} leave out "pruned", which is what the run is for')
