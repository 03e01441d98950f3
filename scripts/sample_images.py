"""Choose one image of each of several data sets, and keep copies with an index of their own."""

from pathlib import Path

from ssltransfer.datasets import Source, image_root, parse_members
from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.index import Index, check_counts, check_index, read_index, write_index
from ssltransfer.datasets.sample import choose
from ssltransfer.jobs import job, log

with job(snakemake.log[0]):
    params, folder = snakemake.params.index, Path(snakemake.output.originals)
    members, seed = parse_members(params["source"][1])
    folder.mkdir(parents=True, exist_ok=True)
    origins = []
    for member, source, path in zip(members, params["sources"], snakemake.input, strict=True):
        index = read_index(path)
        origins.append(index.image[choose(member, index, seed)])
        image = read_image(image_root(Source(*source), snakemake.resources.data_root, path), origins[-1])
        image.save(folder / f"{member.dataset}.png")
        log.info("%s: %s", member.dataset, origins[-1])
    names = [member.dataset for member in members]
    index = Index(
        image=[f"{folder.name}/{name}.png" for name in names],
        split=["test"] * len(names),
        label=list(range(len(names))),
        classes=names,
        extra={"origin": origins},
    )
    check_index(index, params["dataset"])
    check_counts(index, params["dataset"], params["counts"])
    write_index(snakemake.output.index, index)
