"""FGVC-Aircraft 2013b: ``data/images/ID.jpg`` and ``data/images_variant_{train,val,test}.txt``.

Classes are the 100 variants, alphabetically. The images carry a 20-pixel copyright strip at the bottom, which the
official code leaves in (trap T22); so does this one.
"""

from pathlib import Path

from ssltransfer.datasets.index import SPLITS, Index
from ssltransfer.datasets.layout import inner_folder, read_pairs, renumber


def index(root: Path) -> Index:
    """Index the official split; a line is ``ID VARIANT``, and a variant's name may hold blanks."""
    data = inner_folder(root, "fgvc-aircraft-2013b") / "data"
    images = (data / "images").relative_to(root).as_posix()
    parts = {}
    for split in SPLITS:
        pairs = read_pairs(data / f"images_variant_{split}.txt", "ID VARIANT")
        parts[split] = [f"{images}/{key}.jpg" for key, _ in pairs], [variant for _, variant in pairs]
    return renumber(parts, {variant: variant for _, variants in parts.values() for variant in variants})
