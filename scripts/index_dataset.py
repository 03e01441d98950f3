"""Read the original layout of a data set, or a user's own images, into an index."""

from ssltransfer.datasets import Source, image_root, load, location
from ssltransfer.datasets.downloads import where_to_place
from ssltransfer.datasets.images import find_unreadable
from ssltransfer.datasets.index import check_counts, check_files, check_index, select, write_index
from ssltransfer.errors import InputError
from ssltransfer.jobs import job, log, progress

with job(snakemake.log[0]):
    params = snakemake.params.index
    name = params["dataset"]
    source = Source(*params["source"])
    place = location(source, snakemake.resources.data_root)
    if not place.exists():
        raise InputError(f"{name}: {place} is missing; {where_to_place(source)}")
    options = {"variant": source.variant} if source.variant else {}
    if source.kind == "csv":
        options["multi_label"] = params["task"] == "multi-label"
    index = load(source).index(place, **options)
    check_index(index, name)
    root = image_root(source, snakemake.resources.data_root, snakemake.output.index)
    check_files(index, name, root)
    try:
        check_counts(index, name, params["counts"])
    except InputError as error:
        if not params["allow_subset"]:
            raise
        log.warning("allow_subset: %s", error)
    if params["on_error"] == "skip":
        problems = find_unreadable(
            root, index.image, snakemake.threads, lambda rows, total: progress(rows, "images", total)
        )
        for problem in problems.values():
            log.warning("on_error: skip: %s", problem)
        index = select(index, [row for row in range(len(index)) if row not in problems])
        check_index(index, name)
    write_index(snakemake.output.index, index)
