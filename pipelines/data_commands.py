"""The subcommands for datasets: ``pfs pack`` and ``pfs data check``."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pfs_core.errors import UserError

if TYPE_CHECKING:
    from pfs_core.config.stages import SplitConfig

_PRINTED = 20
"""The most faults that are printed; a page has all."""


def add_data_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add both subcommands to the command line.

    Args:
        command: makes a subcommand from its name, its handler and its help text.
    """
    sub = command("pack", pack, "convert a tree of images to Parquet shards that stream well", "set")
    sub.add_argument("dataset", metavar="DATASET", help="a tree of image files: path, file:// or s3://")
    sub.add_argument("out", metavar="OUT", help="folder or s3:// prefix to write")
    sub.add_argument("--shard-mib", type=int, default=128, metavar="N", help="size of a shard (default 128)")
    sub.add_argument("--workers", type=int, default=4, metavar="N", help="shards written at the same time (default 4)")
    shorter = "encode pictures anew whose shorter side has more pixels, at N; default: leave all as they are"
    sub.add_argument("--max-side", type=int, metavar="N", help=shorter)
    sub.add_argument("--quality", type=int, default=90, metavar="N", help="of these JPEGs, 1 to 95 (default 90)")
    sub = command("data", check, "check every image of a dataset", "set", "json")
    sub.add_argument("action", choices=("check",))
    sub.add_argument("dataset", metavar="DATASET", help="as for pfs split")
    sub.add_argument("--html", type=Path, metavar="FILE", help="write a page with images and histograms")


def pack(a: argparse.Namespace) -> None:
    """Run ``pfs pack``."""
    from pfs_core.data.pack import Shrinking
    from pfs_core.data.pack import pack as write

    if a.shard_mib < 1 or a.workers < 1:
        raise UserError("--shard-mib and --workers must be at least 1")
    if a.max_side is not None and a.max_side < 8:
        raise UserError("--max-side must be at least 8, e.g. 256 for crops of 224 pixels")
    if not 1 <= a.quality <= 95:
        raise UserError("--quality must be 1 to 95")
    config = _config_of_pack(a)
    shrinking = Shrinking(a.max_side, a.quality, config.background) if a.max_side else None
    write(a.dataset, a.out, a.shard_mib, a.workers, shrinking, config)


def _config_of_pack(a: argparse.Namespace) -> "SplitConfig":
    """Return the settings of a pack; UserError if one says nothing of how files are read."""
    from pfs_core.config.stages import SplitConfig
    from pfs_core.steps import parse_settings

    settings = parse_settings(a.settings, ("split",))["split"]
    config = SplitConfig.parse(settings, "split")
    known = ["label_column", "image_column", "on_bad", *(["background"] if a.max_side else [])]
    for name in settings:
        if name not in known:
            right = ", ".join(f"split.{one}" for one in known)
            raise UserError(
                f"split.{name} changes nothing in a pack, which takes {right}; set it when the pack is split"
            )
    return config


def check(a: argparse.Namespace) -> int:
    """Run ``pfs data check``; returns 0 if the split would take the dataset, else 2."""
    from pfs_core.config.stages import SplitConfig
    from pfs_core.data.check import check as examine
    from pfs_core.data.check import refusals, used_rows
    from pfs_core.data.decode import remarks_on
    from pfs_core.data.left_out import summary
    from pfs_core.data.open import notes_without, open_source
    from pfs_core.steps import parse_settings
    from pfs_core.storage.artifacts import check_file

    if a.html:
        check_file("--html", a.html)
    config = SplitConfig.parse(parse_settings(a.settings, ("split",))["split"], "split")
    source = open_source(a.dataset, config)
    with contextlib.redirect_stdout(sys.stderr):  # progress goes to stderr, so that the findings can be piped
        found = examine(source)
    refused, used = refusals(source, found, config), used_rows(source, found, config)
    skip, notes = config.on_bad == "skip", notes_without(source, used)
    others = len(used) - int(used.sum()) - len(found.bad) if skip else 0
    faults = [*refused, *(f"{place}: {reason}" for place, reason in found.bad)]
    faults += [f"the same image is in two parts: {one}, {other}" for one, other in found.leaked]
    rows = {part: sum(counts) for part, counts in found.rows_per_class.items()}
    shapes = ", ".join(f"{count:,} with {channels} channel(s)" for channels, count in sorted(found.channels.items()))
    sides = [side for size in found.sizes for side in size] or [0]
    validation = f", {rows['validation']:,} validation" if "validation" in rows else ""
    facts = [
        f"{rows['train']:,} training{validation} and {rows['test']:,} test images of {len(source.class_names)} classes",
        *notes,
        f"{shapes}; sides of {min(sides)} to {max(sides)} pixels",
        *([remarks_on(found.remarks, config.background)] if found.remarks else []),
        f"{found.repeated:,} repeated within a part, {len(found.leaked):,} in two parts",
        f"{len(found.bad):,} cannot be read{' and are left out' if skip else ''}",
        *([f"{others:,} differ from most in size or colours and are left out"] if others else []),
        *([summary(source.left_out)] if source.left_out else []),
        f"fingerprint {source.fingerprint}",
    ]
    if a.html:
        from pfs_core.data.page import dataset_page

        a.html.parent.mkdir(parents=True, exist_ok=True)
        page = dataset_page(
            source.uri, facts, source.class_names, found.rows_per_class, found.samples, found.sizes, faults
        )
        a.html.write_text(page, encoding="utf-8")
    if a.json:
        record = {
            "dataset": source.uri,
            "fingerprint": source.fingerprint,
            "class_names": source.class_names,
            "rows_per_class": found.rows_per_class,
            "sizes": [[*size, count] for size, count in sorted(found.sizes.items())],
            "repeated": found.repeated,
            "in_training_and_test": found.leaked,
            "bad": found.bad,
            "refused": refused,
            "remarks": dict(found.remarks),
            "notes": notes,
            "left_out": [files._asdict() for files in source.left_out],
        }
        print(json.dumps(record, indent=1))
    else:
        more = [f"and {len(faults) - _PRINTED:,} more; --html FILE writes a page with all"]
        print("\n".join([*facts, *faults[:_PRINTED], *(more if len(faults) > _PRINTED else [])]))
    return 2 if refused or (found.bad and not skip) else 0
