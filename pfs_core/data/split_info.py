"""The content of ``split.json``: the dataset of a split, and how it was split."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pfs_core.config.stages import SplitConfig
from pfs_core.storage.digests import json_digest
from pfs_core.storage.result_file import Result, ResultFile, known_settings

PARTS = ("train", "validation", "test")
CLASSES, EACH = 20, 8
"""The page of a dataset shows this many classes, and this many images of each."""


class SkippedImage(Result):
    """An image that was left out."""

    image: str
    """Place of the image in the dataset."""
    reason: str
    """Reason why it cannot be used."""


class LeftOutFiles(Result):
    """Files of the dataset that are no part of it."""

    suffix: str
    """End of their names, in lower case."""
    reason: str
    """Reason why they are not read."""
    files: int
    """Number of files."""
    example: str
    """Path of one of them."""


class Augmentation(Result):
    """Random changes of training images: small ones are padded and cropped, streamed ones cropped unless squashed."""

    crop_padding: int | None = None
    """Pixels that small images are padded by on every side before they are cropped."""
    crop_scale: tuple[float, float] | None = None
    """Smallest and largest area of a crop of a streamed image, as a share of the image."""
    flip: bool
    """Whether images are mirrored at random."""


class Preparation(Result):
    """How an image becomes an input of the network outside of training; normalising is the network's own business."""

    channels: int
    """1 for grey, 3 for RGB."""
    height: int
    """Pixels of the input."""
    width: int
    """Pixels of the input."""
    centre: float | None
    """The part in the centre that is resized to the input, with its aspect ratio and this share of the largest such
    part's sides (of a square that is the shorter side); None takes images of the input's size as they are."""
    background: str
    """Colour behind transparent pixels."""
    squash: bool = False
    """Whether the whole image is resized to the input instead, its aspect ratio not kept."""

    @property
    def words(self) -> str:
        """The same in a sentence."""
        size = f"{self.height}x{self.width}"
        colours = f"{'grey' if self.channels == 1 else 'RGB'} over {self.background}"
        if self.squash:
            return f"the whole image, resized to {size} whatever its aspect ratio, {colours}"
        if self.centre is None:
            return f"images of {size} pixels as they are, {colours}"
        if self.height == self.width:
            return f"the square in the centre with {self.centre:g} of the shorter side, resized to {size}, {colours}"
        part = f"the part in the centre with the aspect ratio of {size} (height by width)"
        return f"{part} and {self.centre:g} of the largest such part's sides, resized to {size}, {colours}"


class SplitInfo(ResultFile):
    """The content of ``split.json``; the images are in the folder beside it, or stay in the dataset."""

    made_again_by: ClassVar[str] = "split again"

    schema_: Literal["pfs.split/2"] = Field(default="pfs.split/2", alias="schema")
    dataset: str
    """Address of the dataset."""
    kind: str
    """Format of the dataset: ``parquet``, ``tree``, ``tar``, ``arrow`` or ``arrays``."""
    in_memory: bool
    """Whether the folder of the split has the images, to be held in memory."""
    seed: int
    """Seed of the random choice of rows."""
    fingerprint: str
    """Digest of the content of the dataset and of the part that each row is in."""
    source_fingerprint: str
    """Digest of the content of the dataset."""
    input_shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    class_names: list[str]
    """Names of the classes, in the order of the labels."""
    rows: dict[str, int]
    """Number of rows by part."""
    rows_per_class: dict[str, list[int]]
    """Number of rows of each class, by part."""
    test_is_given: bool
    """Whether the dataset itself says which rows are its test set."""
    validation_is_given: bool = False
    """Whether the dataset itself says which rows are its validation set."""
    notes: list[str] = Field(default_factory=list)
    """Sentences that say how the dataset was understood."""
    left_out: list[LeftOutFiles] = Field(default_factory=list)
    """Files beside the images that are not read, by suffix."""
    image_column: str = "image"
    """Column of the images, if the format is ``parquet`` or ``arrow``."""
    skipped: list[SkippedImage] = Field(default_factory=list)
    """Images that were left out because they cannot be used."""
    mean: list[float]
    """Mean of the training pixels per channel, in units of 0-255."""
    std: list[float]
    """Standard deviation of the training pixels per channel, in units of 0-255."""
    augmentation: Augmentation
    """Random changes of the training images."""
    preparation: Preparation | None = None
    """How images become inputs of the network in evaluation; older files do not say."""
    config: Annotated[SplitConfig, known_settings(SplitConfig)] = Field(
        validation_alias="recipe", serialization_alias="recipe"
    )
    """Settings of the split."""

    @property
    def digest(self) -> str:
        """Digest of all that a network gets to see: of the ``fingerprint``, and of what is made of an image."""
        made = {"input_shape", "in_memory", "mean", "std", "augmentation", "preparation", "config"}
        return json_digest(self.model_dump(mode="json", include={"fingerprint", *made}), 64)
