"""The settings of every stage but the search, whose settings are its method's (:mod:`pfs_core.methods.registry`)."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from pfs_core.config.spec import Config

Precision = Literal["auto", "bf16", "fp32"]
"""``auto`` is bf16 autocast where the device computes it natively, fp32 elsewhere."""


class SplitConfig(Config):
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


class ExtractConfig(Config):
    """Cutting the gates at the budget."""

    channel_multiple: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    """Kept widths are multiples of this; ``auto`` measures which of 1, 2, 4, 8 and 16 makes the fastest network."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """The share of its unexpanded width that every prunable group keeps at least."""
    runtime: Literal["onnxruntime", "eager", "openvino"] = "onnxruntime"
    """What a latency budget and ``channel_multiple=auto`` measure in."""
    threads: int = Field(default=1, ge=1)
    """On how many threads."""


class RetrainConfig(Config):
    """Training with SGD."""

    epochs: int = Field(ge=1)
    start: Literal["fresh", "inherited"] = "fresh"
    """``inherited`` fine-tunes: the pruned network starts from what it keeps of the network that its method trained."""
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

    @field_validator("start", mode="before")
    @classmethod
    def _renamed(cls, start: Any) -> Any:
        if start == "kept":
            raise ValueError("is called inherited: retrain.start=inherited")
        return start

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


class LatencyConfig(Config):
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
