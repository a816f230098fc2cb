"""The settings of every stage except for the search; those are in the packages of the methods."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pfs_core.config.image_size import height_and_width
from pfs_core.config.spec import Config

Precision = Literal["auto", "bf16", "fp32"]
"""Number format of forward and backward passes; ``auto`` is bf16 where the device computes it natively, else fp32."""


LARGEST_NUMBER = 10**9
"""The largest number of a setting: what is larger is a slip, and neither ends nor fits anywhere."""


class StageConfig(Config):
    """Settings of a stage, whose numbers have a limit."""

    @field_validator("*", mode="after")
    @classmethod
    def _small_enough(cls, value: Any) -> Any:
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, int | float) and number > LARGEST_NUMBER for number in numbers):
            raise ValueError(f"must be at most {LARGEST_NUMBER:,}")
        return value


class SplitConfig(StageConfig):
    """Settings of the split: which images are for validation and which for the test, and how images are read."""

    validation: int = Field(default=5000, ge=1)
    """Number of training images that are held out at random for validation."""
    validation_per_class: int | None = Field(default=None, ge=1)
    """Number of validation images of each class, in place of a total; the paper uses 50 on ImageNet."""
    stratified: bool = False
    """Draw the validation images from every class in proportion to its size."""
    max_validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Largest fraction of the training images to hold out for validation, which matters for small datasets."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the images that is held out at random for the test, if the dataset has no test set."""
    flip: bool = True
    """Mirror training images at random. Set it to false if a mirrored image is of another class, like a digit."""
    channels: Literal[1, 3] | None = None
    """Convert every image to grey (1) or to RGB (3); None keeps the images as they are."""
    image_size: int | tuple[int, int] | None = None
    """Side of the images to train on, or height and width as 160x128, streamed from the files and resized; None keeps
    images of one size in memory."""
    resize: Literal["crop", "squash"] = "crop"
    """What is resized to ``image_size``: ``crop`` is a random part in training and the centre in evaluation, ``squash``
    the whole image in both, its aspect ratio not kept."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of a random crop, as a fraction of its image."""
    background: str = "white"
    """Colour behind transparent pixels, as a name or ``#rrggbb``."""
    image_column: str | None = None
    """Column of the images in Parquet and Arrow files, or of their paths in a list; None takes the usual names."""
    label_column: str | None = None
    """Column of the labels, such as ``fine_label``; None takes ``label``."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do if an image cannot be read: stop the split, or skip the image and list it in split.json."""

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width that ``image_size`` stands for."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @field_validator("image_size", mode="before")
    @classmethod
    def _height_and_width(cls, size: Any) -> Any:
        return size if size is None else height_and_width(size)

    @field_validator("resize")
    @classmethod
    def _resizes(cls, resize: str, info: ValidationInfo) -> str:
        if resize == "squash" and info.data.get("image_size", 0) is None:
            raise ValueError("squash needs a size: set split.image_size, such as 224 or 160x128")
        return resize

    @field_validator("background")
    @classmethod
    def _colour(cls, colour: str) -> str:
        from PIL import ImageColor

        try:
            ImageColor.getrgb(colour)
        except ValueError:
            raise ValueError("must be a colour such as white or #ffffff") from None
        return colour

    @field_validator("crop_scale")
    @classmethod
    def _rising(cls, scale: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError("must be two rising numbers in (0, 1]")
        if info.data.get("resize") == "squash" and scale != cls.model_fields["crop_scale"].default:
            raise ValueError("scales crops, and split.resize=squash makes none; leave one of the two out")
        return scale


LEAST_BLOCK = 4
"""The fewest channels that any runtime computes at once; the widths of larger blocks are among those of this one."""


class ExtractConfig(StageConfig):
    """Settings of the extraction, which cuts the gates at the budget."""

    blocks: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Channels that the runtime computes at once, as far as ``auto`` does not measure it; 1 is the paper's own cut."""
    channel_multiple: int = Field(default=1, ge=1)
    """Number that widths are multiples of, whatever the blocks are."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """Fraction of its unexpanded width that every prunable group keeps at least."""
    runtime: Literal["auto", "onnxruntime", "eager", "openvino"] = "auto"
    """Runtime that blocks and latency budgets are measured in; ``auto`` is the dense network's fastest for a latency
    budget, else ONNX Runtime."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Threads of these measurements; ``auto`` is what is fastest for a latency budget, else 1."""

    @property
    def block_of_smallest(self) -> int:
        """A block by which the smallest structure is known before any is measured: none leads to a smaller one."""
        return LEAST_BLOCK if self.blocks == "auto" else self.blocks

    @field_validator("channel_multiple", mode="before")
    @classmethod
    def _measured_by_blocks(cls, multiple: Any) -> Any:
        if multiple == "auto":
            raise ValueError("no longer measures anything: extract.blocks=auto does, and is the default")
        return multiple


def _rising(milestones: tuple[float, ...]) -> tuple[float, ...]:
    if list(milestones) != sorted(set(milestones)) or any(not 0 < m < 1 for m in milestones):
        raise ValueError("must be rising fractions between 0 and 1")
    return milestones


Milestones = Annotated[tuple[float, ...], AfterValidator(_rising)]
"""Fractions of a training at which the learning rate drops."""


class RetrainConfig(StageConfig):
    """Settings of the training with SGD."""

    epochs: int = Field(ge=1)
    """Number of epochs, which ``scratch_b`` stretches for the pruned network."""
    start: Literal["fresh", "inherited"] = "fresh"
    """Initial weights: ``fresh``, or ``inherited`` from the network that the method trained (fine-tuning)."""
    batch_size: int = Field(default=128, ge=2)
    """Images per optimiser step, over all processes."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches per optimiser step, for batches that do not fit in memory at once."""
    lr: float = Field(default=0.1, gt=0)
    """Learning rate after the warm-up."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    nesterov: bool = True
    """Use Nesterov's form of momentum."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Weight decay of SGD."""
    decay_norm_and_bias: bool = True
    """Apply weight decay to biases and to the scales and shifts of normalisations as well."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient of all weights; a larger gradient is scaled down to it, None never scales."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of every label that is spread evenly over all classes."""
    augment: Literal["randaugment", "trivialaugment"] | None = None
    """Policy that changes every training image after crop and mirroring, as published: RandAugment with 2 operations of
    magnitude 9, or TrivialAugment; None has none."""
    random_erasing: float = Field(default=0.0, ge=0, le=1)
    """Probability that a rectangle of a training image is replaced by the mean colour."""
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of mixup, which blends the images of a batch in pairs, labels too; 0 has none. With ``cutmix`` a batch has
    either."""
    cutmix: float = Field(default=0.0, ge=0)
    """Alpha of CutMix, which puts a rectangle of one image into another, labels by area; 0 has none."""
    class_weights: Literal["balanced"] | None = None
    """Weights of the loss by class: ``balanced`` is images / (classes * images of the class); None has none."""
    balanced_sampling: bool = False
    """Draw equally many images of every class in an epoch, which stays as long: those of small classes come several
    times, of large classes other ones each time."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of a moving average of the weights, which is then validated, tested and saved; None has none."""
    schedule: Literal["multistep", "cosine"] = "multistep"
    """Course of the learning rate: it drops at ``milestones``, or follows half a cosine down to 0."""
    milestones: Milestones = ()
    """Fractions of the training at which the multistep schedule multiplies the learning rate by ``factor``."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    """Factor on the learning rate at each milestone."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs at the start in which the learning rate rises linearly to ``lr``; a cosine follows after them."""
    scratch_b: bool = True
    """Train with the dense network's compute: epochs and schedule are stretched by dense MACs / MACs."""
    train_on_validation: bool = True
    """Train on the training and the validation images together; if false, validate during the training."""
    validate_every: int = Field(default=1, ge=1)
    """Epochs between validations; the last epoch is always validated."""
    sync_bn: bool = False
    """Compute BatchNorm's statistics over the batches of all processes that train together (GPUs only)."""
    keep: Literal["last", "best"] = "last"
    """Weights to test: those of the ``last`` epoch, or those of the epoch with the ``best`` validation accuracy."""
    precision: Precision = "auto"
    """Number format of the forward and backward passes; ``auto`` is bf16 where the device computes it natively."""

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

    @field_validator("balanced_sampling")
    @classmethod
    def _balanced_once(cls, balanced: bool, info: ValidationInfo) -> bool:
        if balanced and info.data.get("class_weights"):
            raise ValueError("makes up for the sizes of classes as class_weights does; leave one of the two out")
        return balanced

    @field_validator("warmup_epochs")
    @classmethod
    def _shorter(cls, warmup: float, info: ValidationInfo) -> float:
        falls = info.data.get("milestones") if info.data.get("schedule") == "multistep" else None
        first = min(falls or (1.0,))
        if "epochs" in info.data and warmup >= first * info.data["epochs"]:
            raise ValueError(f"must be less than the {first * info.data['epochs']:g} epochs before the rate falls")
        return warmup

    @field_validator("keep")
    @classmethod
    def _validated(cls, keep: str, info: ValidationInfo) -> str:
        if keep == "best" and info.data.get("train_on_validation"):
            raise ValueError("best needs a validation: set train_on_validation=false")
        return keep


class LatencyConfig(StageConfig):
    """Settings of the interleaved latency protocol."""

    patience_seconds: float = Field(default=180.0, ge=0)
    """Longest time to wait until other processes leave the machine alone; then it is measured all the same."""
    warmup_seconds: float = Field(default=1.0, ge=0)
    """Seconds of warm-up before each measurement, at least."""
    warmup_rounds: int = Field(default=10, ge=1)
    """Rounds of warm-up before each measurement, at least."""
    min_rounds: int = Field(default=100, ge=64)
    """Smallest number of rounds after which a measurement ends because its intervals are narrow."""
    max_seconds: float = Field(default=30.0, gt=0)
    """Longest duration of a measurement in seconds, after which slow networks go on until there are 25 rounds."""
    relative_width: float = Field(default=0.02, gt=0)
    """Relative width of the intervals of all medians and ratios at which a measurement ends early."""
    runtimes: tuple[Literal["onnxruntime", "eager", "aotinductor", "openvino"], ...] = Field(
        default=("onnxruntime", "eager", "openvino"), min_length=1
    )
    """Runtimes to measure in; the first that works is quoted. aotinductor needs a C++ compiler and half a minute."""
    threads: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(1, 0), min_length=1)
    """Numbers of threads to measure with; 0 means all cores."""
    batches: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1,), min_length=1)
    """Batch sizes to measure with."""

    @field_validator("runtimes", "threads", "batches", mode="before")
    @classmethod
    def _one_or_more(cls, values: Any) -> Any:
        if isinstance(values, str):
            return [value.strip() for value in values.split(",")]
        return (values,) if isinstance(values, int | float) else values
