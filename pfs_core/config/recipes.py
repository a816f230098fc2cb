"""Recipes: every setting of every step, as plain functions that return a full configuration."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from pfs_core.config.spec import Config
from pfs_core.errors import UserError

Precision = Literal["auto", "bf16", "fp32"]
"""``auto`` is bf16 autocast where the device computes it natively, fp32 elsewhere."""


class SplitRecipe(Config):
    """Which rows validate and which test, and how images are read."""

    validation: int = Field(default=5000, ge=1)
    """Rows held out of the training set to validate on, at random."""
    validation_per_class: int | None = Field(default=None, ge=1)
    """Rows of each class instead of a total, as the paper does on ImageNet (50)."""
    stratified: bool = False
    """Give every class its share of the validation rows."""
    max_validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Upper bound of the validation rows as a fraction of the training rows, for small sets."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Rows held out to test on, at random, where the source has no test set of its own."""
    flip: bool = True
    """Mirror training images at random; false where a mirrored image is of another class, as for digits or signs."""
    channels: Literal[1, 3] | None = None
    """Read every image as grey or as RGB; None keeps what the images are."""
    image_size: int | None = Field(default=None, ge=8, le=1024)
    """Train on random crops resized to this, read from where they are; None keeps images of one size in memory."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Area of a random crop as a share of its image, smallest and largest."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What an image that cannot be read does: stop the split, or be left out and listed in split.json."""

    @field_validator("crop_scale")
    @classmethod
    def _rising(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError("must be two rising numbers in (0, 1]")
        return scale


class ChannelsRecipe(Config):
    """Which channels a structure is chosen from."""

    expand: float = Field(default=1.25, ge=1.0, le=8.0)
    """Factor on the prunable widths before the search."""
    expand_stream: float | None = Field(default=None, ge=1.0, le=8.0)
    """Factor on the residual streams; None leaves that to the network."""
    policy: Literal["inner", "all"] = "inner"
    """``all`` prunes residual streams too."""
    placement: Literal["last", "official"] = "last"
    """Gates at the last BatchNorm before channels are mixed, or, as the paper's released code, at the first."""
    precision: Precision = "auto"


class SearchRecipe(ChannelsRecipe):
    """Pruning from Scratch: learning the gates on frozen random weights."""

    method: Literal["pfs"] = "pfs"
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=2)
    lr: float = Field(default=0.01, gt=0)
    gamma: float = Field(default=0.5, ge=0)
    """Weight of the regulariser (mean gate - target ratio)^2."""
    target_ratio: float | None = Field(default=None, gt=0, le=1)
    """The regulariser's r; None takes the budget's fraction."""
    pretrain_epochs: int = Field(default=0, ge=0)
    """Of training before the search, as Network Slimming's without its penalty; 0, the method, searches on random
    weights."""
    compile: bool = False
    """Use torch.compile (with CUDA graphs on a GPU): quicker steps after some minutes of compiling."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations within an epoch; None evaluates at the end of each."""
    settled: float | None = Field(default=None, ge=0, lt=1)
    """End the search when at most this share of the channels within the budget changes between evaluations."""
    settled_evaluations: int = Field(default=3, ge=1)
    """How many evaluations in a row must say so."""


class UniformRecipe(ChannelsRecipe):
    """One factor for every prunable width."""

    method: Literal["uniform"] = "uniform"


class RandomRecipe(ChannelsRecipe):
    """Widths drawn at random, then brought to the budget; another seed is another draw."""

    method: Literal["random"] = "random"
    lowest: float = Field(default=0.1, gt=0, lt=1)
    """Each group's share of its channels is drawn between this and 1."""


class TrainedRecipe(ChannelsRecipe):
    """Methods that start from a trained network: SGD with a multi-step schedule."""

    expand: float = Field(default=1.0, ge=1.0, le=8.0)
    """Factor on the prunable widths; these methods prune the published network."""
    epochs: int = Field(default=160, ge=1)
    """Of the training."""
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    milestones: tuple[float, ...] = (0.5, 0.75)
    """Fractions of the training at which the rate falls to a tenth."""


class SlimmingRecipe(TrainedRecipe):
    """Network Slimming (Liu et al. 2017): training with an L1 penalty on BatchNorm's scales, then a global cut."""

    method: Literal["network_slimming"] = "network_slimming"
    sparsity: float = Field(default=1e-5, ge=0)
    """The penalty's weight; 1e-4 is usual for VGG on CIFAR, 1e-5 for ResNets."""
    initial_scale: float = Field(default=0.5, gt=0)
    """Of the penalised scales."""
    rounds: int = Field(default=1, ge=1)
    """Times that the network is trained and cut; the earlier cuts lie evenly, as factors, before the budget."""


class AmcRecipe(TrainedRecipe):
    """AMC (He et al. 2018): an agent that learns, episode by episode, how much each group of a trained net keeps."""

    method: Literal["amc"] = "amc"
    episodes: int = Field(default=800, ge=1)
    warmup_episodes: int = Field(default=100, ge=1)
    """Of them, that act at random."""
    lowest: float = Field(default=0.2, gt=0, lt=1)
    """The smallest share of its channels that a group may keep."""
    actor_lr: float = Field(default=1e-4, gt=0)
    critic_lr: float = Field(default=1e-3, gt=0)
    noise: float = Field(default=0.5, gt=0)
    """Standard deviation of the noise on actions after the warm-up."""
    noise_decay: float = Field(default=0.95, gt=0, le=1)
    """Factor on it an episode."""
    reward_rows: int | None = Field(default=None, ge=1)
    """Validation rows that a candidate is judged on; None takes all."""
    recalibrate: int = Field(default=512, ge=0)
    """Training images that BatchNorm's statistics of a candidate are taken from; 0 leaves those of the trained net."""

    @field_validator("warmup_episodes")
    @classmethod
    def _fewer(cls, warmup: int, info: ValidationInfo) -> int:
        if warmup > info.data.get("episodes", warmup):
            raise ValueError("must be at most search.episodes")
        return warmup


MethodRecipe = SearchRecipe | UniformRecipe | RandomRecipe | SlimmingRecipe | AmcRecipe
"""How a structure is chosen: the settings of the search, by ``method``."""
METHODS = ("pfs", "uniform", "random", "network_slimming", "amc")


class ExtractRecipe(Config):
    """Cutting the gates at the budget."""

    channel_multiple: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    """Kept widths are multiples of this; ``auto`` measures which of 1, 2, 4, 8 and 16 makes the fastest network."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """The share of its unexpanded width that every prunable group keeps at least."""
    runtime: Literal["onnxruntime", "eager", "openvino"] = "onnxruntime"
    """What a latency budget and ``channel_multiple=auto`` measure in."""
    threads: int = Field(default=1, ge=1)
    """On how many threads."""


class RetrainRecipe(Config):
    """Training with SGD."""

    epochs: int = Field(ge=1)
    start: Literal["fresh", "kept"] = "fresh"
    """``kept`` fine-tunes: the pruned network starts from what it keeps of the network that its method trained."""
    batch_size: int = Field(default=128, ge=2)
    """Images of an optimiser step, of all processes together."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches that the images of a step are computed in, where they do not fit in memory at once."""
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=5e-4, ge=0)
    decay_norm_and_bias: bool = True
    """Decay the scales and shifts of normalisations, and biases, as all other weights."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient of all weights together; a longer one is scaled down to it."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of every label that is spread evenly over all classes."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay a step of a moving average of the weights, which is then what is validated, tested and saved."""
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[float, ...] = ()
    """Fractions of the training at which the multistep schedule multiplies the rate by ``factor``."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs in which the rate rises evenly to ``lr``; a cosine begins after them."""
    scratch_b: bool = True
    """Spend the dense network's compute: epochs x (dense MACs / MACs), every step of the schedule stretched."""
    train_on_validation: bool = True
    """Train on training and validation rows together; otherwise validate on the way."""
    validate_every: int = Field(default=1, ge=1)
    """Epochs from one validation to the next; the last epoch is always validated."""
    sync_bn: bool = False
    """Where several processes train: take BatchNorm's statistics over the batches of all of them (GPUs only)."""
    keep: Literal["last", "best"] = "last"
    """Which weights are tested: those of the last epoch, or of the best validation."""
    precision: Precision = "auto"

    @field_validator("accumulate")
    @classmethod
    def _micro_batches(cls, accumulate: int, info: ValidationInfo) -> int:
        if 2 * accumulate > info.data.get("batch_size", 2 * accumulate):
            raise ValueError("must leave at least 2 of batch_size's images to a micro-batch")
        return accumulate

    @field_validator("milestones")
    @classmethod
    def _ordered(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if list(milestones) != sorted(set(milestones)) or any(not 0 < m < 1 for m in milestones):
            raise ValueError("must be rising fractions between 0 and 1")
        return milestones

    @field_validator("warmup_epochs")
    @classmethod
    def _shorter(cls, warmup: float, info: ValidationInfo) -> float:
        first = min(info.data.get("milestones") or (1.0,))
        if "epochs" in info.data and warmup >= first * info.data["epochs"]:
            raise ValueError(f"must be less than the {first * info.data['epochs']:g} epochs before the rate falls")
        return warmup

    @field_validator("keep")
    @classmethod
    def _validated(cls, keep: str, info: ValidationInfo) -> str:
        if keep == "best" and info.data.get("train_on_validation"):
            raise ValueError("best needs a validation: set train_on_validation=false")
        return keep


class LatencyRecipe(Config):
    """The interleaved latency protocol; times in seconds."""

    warmup_seconds: float = Field(default=1.0, ge=0)
    warmup_rounds: int = Field(default=10, ge=1)
    min_rounds: int = Field(default=100, ge=64)
    max_seconds: float = Field(default=30.0, gt=0)
    relative_width: float = Field(default=0.02, gt=0)
    """Stop when the interval of every median and ratio is narrower than this fraction of it."""
    runtimes: tuple[Literal["onnxruntime", "eager", "aotinductor", "openvino"], ...] = Field(
        default=("onnxruntime", "eager", "openvino"), min_length=1
    )
    """The first one that works is quoted. openvino needs its package, aotinductor a C++ compiler and half a minute."""
    threads: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(1, 0), min_length=1)
    """Each is measured; 0 means all cores."""
    batches: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1,), min_length=1)
    """Images at once; each is measured."""

    @field_validator("runtimes", "threads", "batches", mode="before")
    @classmethod
    def _one_or_more(cls, values: Any) -> Any:
        return (values,) if isinstance(values, str | int | float) else values


class Recipe(Config):
    """A full configuration of the pipeline."""

    split: SplitRecipe = SplitRecipe()
    search: SearchRecipe = SearchRecipe()
    uniform: UniformRecipe = UniformRecipe()
    random: RandomRecipe = RandomRecipe()
    network_slimming: SlimmingRecipe = SlimmingRecipe()
    amc: AmcRecipe = AmcRecipe()
    extract: ExtractRecipe = ExtractRecipe()
    retrain: RetrainRecipe
    latency: LatencyRecipe = LatencyRecipe()

    def stage(self, name: str, changes: Mapping[str, Any]) -> Any:
        """The configuration of one stage with ``changes`` applied; that of ``search`` is of the method they name."""
        method = changes.get("method", "pfs") if name == "search" else "pfs"
        if method not in METHODS:
            raise UserError(f"search.method: {method!r} is not known; known: {', '.join(METHODS)}")
        start = name if method == "pfs" else method
        return getattr(self, start).updated(changes, name)


_IMAGENET_SPLIT = SplitRecipe(validation_per_class=50, image_size=224)
_IMAGENET_SEARCH = SearchRecipe(epochs=1, batch_size=100, gamma=0.05, evaluate_every=500)
_IMAGENET_TRAINING: dict[str, Any] = {"epochs": 90, "batch_size": 256, "milestones": (1 / 3, 2 / 3)}
_IMAGENET_SLIMMING = SlimmingRecipe(**_IMAGENET_TRAINING)
_IMAGENET_AMC = AmcRecipe(**_IMAGENET_TRAINING, reward_rows=3000)


def cifar_sfp() -> Recipe:
    """The paper's CIFAR-10 setting: search 10 epochs, retrain as He et al. 2018 (soft filter pruning)."""
    return Recipe(retrain=RetrainRecipe(epochs=200, milestones=(0.3, 0.6, 0.8), factor=0.2))


def cifar_official() -> Recipe:
    """The schedule of the paper's released code: 160 epochs, a tenth of the rate at 50% and 75%."""
    return Recipe(retrain=RetrainRecipe(epochs=160, nesterov=False, weight_decay=1e-4, milestones=(0.5, 0.75)))


def imagenet_mobilenet() -> Recipe:
    """The paper's setting for MobileNets on ImageNet: 300 epochs with a cosine."""
    return Recipe(
        split=_IMAGENET_SPLIT,
        search=_IMAGENET_SEARCH,
        network_slimming=_IMAGENET_SLIMMING,
        amc=_IMAGENET_AMC,
        retrain=RetrainRecipe(
            epochs=300, batch_size=256, lr=0.05, nesterov=False, weight_decay=4e-5, schedule="cosine"
        ),
    )


def imagenet_resnet() -> Recipe:
    """The paper's setting for ResNets on ImageNet: 90 epochs as He et al. 2016, with label smoothing."""
    return Recipe(
        split=_IMAGENET_SPLIT,
        search=_IMAGENET_SEARCH,
        network_slimming=_IMAGENET_SLIMMING,
        amc=_IMAGENET_AMC,
        retrain=RetrainRecipe(
            epochs=90,
            batch_size=256,
            nesterov=False,
            weight_decay=1e-4,
            milestones=(1 / 3, 2 / 3),
            label_smoothing=0.1,
        ),
    )


def fast() -> Recipe:
    """A first look at real data: a search until it has settled, 15 epochs of training with a cosine, validated.

    Far from the paper's schedules: it says whether a dataset and a network work, not how good they get.
    """
    return Recipe(
        search=SearchRecipe(epochs=5, evaluate_every=100, settled=0.1),
        network_slimming=SlimmingRecipe(epochs=15),
        amc=AmcRecipe(epochs=15, episodes=100, warmup_episodes=25, reward_rows=1000),
        retrain=RetrainRecipe(
            epochs=15, schedule="cosine", warmup_epochs=1, scratch_b=False, train_on_validation=False
        ),
    )


def demo() -> Recipe:
    """Seconds on a laptop with the embedded digits; shows the machinery, proves nothing."""
    return Recipe(
        search=SearchRecipe(epochs=40, batch_size=64),
        network_slimming=SlimmingRecipe(epochs=20),
        amc=AmcRecipe(epochs=20, episodes=60, warmup_episodes=20),
        retrain=RetrainRecipe(epochs=20, batch_size=64, schedule="cosine", scratch_b=False, train_on_validation=False),
        latency=LatencyRecipe(max_seconds=8.0, threads=(1,)),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "cifar-sfp": cifar_sfp,
    "cifar-official": cifar_official,
    "imagenet-mobilenet": imagenet_mobilenet,
    "imagenet-resnet": imagenet_resnet,
    "fast": fast,
    "demo": demo,
}


def recipe(name: str) -> Recipe:
    """The recipe of that name; UserError lists the names if there is none."""
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]()


def default_recipe(dataset: str) -> str:
    """The recipe for a dataset where none is named: ``demo`` for the embedded digits, else the paper's."""
    return "demo" if dataset == "digits" else "cifar-sfp"
