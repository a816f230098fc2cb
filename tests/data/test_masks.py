"""Folders of images and of masks are no classes; folders of classes with such words in their names are."""

import pytest

from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from pfs_core.storage import open_storage
from tests.data.folders import encode, picture, tree

SAID_BY_NAMES = {
    "images and masks": ["images", "masks"],
    "VOC": ["JPEGImages", "SegmentationClass", "SegmentationObject"],
    "Carvana": ["train", "train_masks"],
    "Kvasir": ["images", "masks", "bbox"],
    "originals": ["original", "mask"],
    "DUTS": ["DUTS-TR-Image", "DUTS-TR-Mask"],
    "KITTI": ["image_2", "label_2"],
    "depth": ["rgb", "depth"],
    "pix2pix": ["input", "target"],
    "ground truth": ["imgs", "ground_truth", "Binary Masks"],
    "parts": ["train/imgs", "train/gt", "val/imgs", "val/gt"],
}


@pytest.mark.parametrize("case", SAID_BY_NAMES)
def test_folders_whose_names_say_images_and_masks_are_refused(tmp_path, case):
    tree(tmp_path, *[f"{folder}/{i}.png" for folder in SAID_BY_NAMES[case] for i in range(3)])
    with pytest.raises(UserError, match=r"has folders of images and of masks \(.*\), not of classes; expected"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_annotations_beside_images_and_masks_do_not_hide_what_they_are(tmp_path, where, request):
    root = tree(tmp_path / "voc", *[f"{folder}/{i}.png" for folder in SAID_BY_NAMES["VOC"] for i in range(3)])
    uri = str(root) if where == "folder" else f"{request.getfixturevalue('bucket')}/voc"
    there = open_storage(uri)
    for path in sorted(root.rglob("*.png")):
        there.write(str(path.relative_to(root)), encode(picture(0)))
    there.write("Annotations/0.xml", b"<annotation/>")
    with pytest.raises(UserError, match="has folders of images and of masks"):
        open_source(uri)


NAMES = ["0cdf5b_01", "1ba01a_02", "fff9b3_01"]
ALIKE = {
    "masks of all": ({"cat": NAMES[:1], "dog": NAMES[1:], "masks": NAMES}, "masks"),
    "of one class": ({"cat": NAMES, "cat_mask": [f"{name}_mask" for name in NAMES]}, "cat_mask"),
    "a class with such a word": ({"cat": NAMES[:2], "litter box": NAMES[2:], "masks": NAMES[:2]}, "masks"),
    "numbers with gaps": ({"street": ["2007_000032", "2009_04112"], "labels": ["2007_000032", "2009_04112"]}, "labels"),
}


@pytest.mark.parametrize("case", ALIKE)
def test_a_folder_of_masks_whose_images_are_called_like_others_is_refused(tmp_path, case):
    folders, masks = ALIKE[case]
    tree(tmp_path, *[f"{folder}/{name}.png" for folder, names in folders.items() for name in names])
    with pytest.raises(UserError, match=f"has a folder {masks}/ whose images have the names of those in other folders"):
        open_source(str(tmp_path))


CLASSES = [
    ["mask", "no_mask"],
    ["Mask", "NoMask"],
    ["mask", "without"],
    ["with_mask", "without_mask", "mask_weared_incorrect"],
    ["object", "no object"],
    ["face", "face shield", "face_mask", "no mask"],
    ["class1", "class2"],
    ["label_0", "label_1"],
    ["photo", "sketch"],
]


@pytest.mark.parametrize("folders", CLASSES)
@pytest.mark.parametrize("names", [["0", "1", "2"], ["img_1", "img_2"], ["IMG_20210304", "IMG_20220911"]])
def test_classes_that_are_called_by_such_words_are_classes(tmp_path, folders, names):
    tree(tmp_path, *[f"{folder}/{name}.png" for folder in folders for name in names])
    assert open_source(str(tmp_path)).class_names == sorted(folders)


NUMBERED = [["face", "mask"], ["gas", "gas_mask"], ["background", "object"], ["mask", "plane", "train"]]


@pytest.mark.parametrize("folders", NUMBERED)
def test_files_that_are_numbered_alike_do_not_make_masks(tmp_path, folders):
    tree(tmp_path, *[f"{folder}/img_{i:04}.png" for folder in folders for i in range(3, 9)])
    assert open_source(str(tmp_path)).class_names == folders
