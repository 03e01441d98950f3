"""Read the known surface normals of a data set and the masks of valid pixels into one array."""

from pathlib import Path

from ssltransfer.datasets import Source, image_root
from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.index import read_index
from ssltransfer.datasets.nyuv2 import read_normals
from ssltransfer.jobs import job, log, progress
from ssltransfer.protocols.dense.normals.ground_truth import check_size, write_normals

with job(snakemake.log[0]):
    source = Source(*snakemake.params.normals["source"])
    root = image_root(source, snakemake.resources.data_root, snakemake.input[0])
    index = read_index(snakemake.input[0])

    def frames():
        """Yield name, normals and mask of every image."""
        for image, reference in progress(list(zip(index.image, index.extra["normals"], strict=True)), "images"):
            normals, valid = read_normals(root, reference)
            where = str(root / reference)
            check_size(where, valid, str(root / image), read_image(root, image).size)
            yield where, normals, valid

    counts = write_normals(frames(), len(index), Path(snakemake.output.normals))
    log.info("%d images: %s", len(index), ", ".join(f"{value} {name}" for name, value in counts.items()))
    if counts["zero"]:
        log.warning("%d pixels are marked valid but have no normal; they are left out", counts["zero"])
