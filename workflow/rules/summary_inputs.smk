# Needs: common.smk.
# Makes: input and parameter functions of summary.smk.
from collections import Counter
from functools import cache

from snakemake.io import IOFile

from ssltransfer.files import read_json
from ssltransfer.report.adoption import adopt_scores
from ssltransfer.report.manual_steps import manual_step_lines, manual_steps
from ssltransfer.report.missing import missing_scores, write_missing
from ssltransfer.report.score_check import list_differences
from ssltransfer.results.outcome_header import list_missing


def score_file(cell):
    return f"results/scores/{cell.protocol}/{cell.model}/{cell.dataset}.json"


@cache
def adoption():
    """The scores of the suite that were measured elsewhere; those that do not fit it are warned of."""
    try:
        adopted = adopt_scores(SUITE, lambda cell: Path(score_file(cell)).exists())
    except InputError as error:
        raise WorkflowError(str(error)) from None
    if workflow.is_main_process:
        for refusal in adopted.refused:
            logger.warning(str(refusal))
    return adopted


def adopted_scores(wildcards):
    """Score files of others that the suite shows."""
    return sorted(map(str, adoption().scores.values()))


def shown_cell(cell):
    """The cell, or the one whose score is shown instead; None if it is adopted, or with `available` has no score."""
    other = SUITE.shown_instead(cell)
    if Path(score_file(cell)).exists():
        return cell
    if other and Path(score_file(other)).exists():
        return other
    return None if SUITE.config["available"] or cell in adoption().scores else cell


def shown_cells():
    return [shown for shown in map(shown_cell, SUITE.cells()) if shown]


def made_files(paths):
    """Files that belong to the scores of a suite; with `available` those that exist."""
    return [path for path in paths if Path(path).exists() or not SUITE.config["available"]]


def suite_scores(wildcards):
    """All score files of the suite; a dry run lists what has to be done by hand for them."""
    cells = shown_cells()
    if workflow.is_main_process and workflow.dryrun:
        absent = [cell for cell in cells if not Path(score_file(cell)).exists()]
        LAST_LINES["steps"] = manual_step_lines(manual_steps(SUITE, absent))
    return [score_file(cell) for cell in cells]


def scores_on_disk(wildcards):
    """The score files that exist; none without a shared file system, whose scores lie in the storage."""
    return [path for path in suite_scores(wildcards) if SHARED and Path(path).is_file()]


def suite_outcomes(wildcards):
    """The outcomes of the scores, where they have to be named."""
    return [] if SHARED else [f"results/outcomes/{c.protocol}/{c.model}/{c.dataset}.npz" for c in shown_cells()]


def provenance_files(wildcards):
    """The scores and indexes that the provenance tells of, where they have to be named."""
    if SHARED or wildcards.suite != SUITE.name:
        return []
    cells = shown_cells()
    recipes = [SUITE.recipe(model) or {} for model in {cell.model for cell in cells}]
    datasets = {name for cell in cells for name in (cell.dataset, SUITE.image_dataset(cell.dataset))}
    datasets |= {recipe["dataset"] for recipe in recipes if "dataset" in recipe}
    return [*map(score_file, cells), *(f"results/datasets/{name}/index.parquet" for name in sorted(datasets))]


def suite_similarity(wildcards):
    """Similarities of the models, for each dataset of a protocol of estimators that compares two models or more.

    With `available` those that exist, or that can be made from features that exist.
    """
    cells = [c for c in shown_cells() if SUITE.kind(c.protocol) == "estimators"]
    counts = Counter((cell.protocol, cell.dataset) for cell in cells)
    paths = {f"results/similarity/{d}/{p}.{SUITE.name}.json": (p, d) for (p, d), n in counts.items() if n > 1}
    every = not SUITE.config["available"]
    return [path for path, compared in paths.items() if every or Path(path).exists() or are_comparable(*compared)]


def are_comparable(protocol, dataset):
    """Whether the features of two models exist, and the index of their images."""
    there = [path for path in compared_features(protocol, dataset).values() if Path(path).exists()]
    return len(there) > 1 and Path(f"results/datasets/{dataset}/index.parquet").exists()


def unrecorded_differences(wildcards):
    """A list of the scores that Snakemake has no record of (copied here) and that differ from the suite, if any do.

    Nothing else would make the summary again: Snakemake compares the settings only of jobs that it has a record of. The
    list has a folder of its own, because Snakemake may have looked into the folders of its outputs before.
    """
    unrecorded = [
        path for path in scores_on_disk(wildcards) if not workflow.persistence.metadata(IOFile(path, rule=None))
    ]
    listed = f"results/differing/{wildcards.suite}.json"
    return [listed] if list_differences(listed, unrecorded, SUITE) else []


def missing_list(wildcards):
    """With `available` a list of the scores that the suite lacks; what is news there makes the summary again."""
    if not SHARED:
        return []
    absent = (cell for cell in SUITE.cells() if not shown_cell(cell) and cell not in adoption().scores)
    cells = [*absent, *SUITE.left_out]
    missing = missing_scores(SUITE, cells, command_options(), files=workflow.configfiles) if cells else []
    if missing:
        write_missing(MISSING, missing)
    if SUITE.config["available"] and workflow.is_main_process:
        LAST_LINES["missing"] = missing
    return [MISSING] if missing else []


def command_options():
    """The options that name this suite on the command line."""
    files = [os.path.relpath(path) for path in workflow.overwrite_configfiles]
    settings = [f"{key}={value}" for key, value in workflow.config_settings.config.items() if key != "available"]
    return shlex.join((["--configfile", *files] if files else []) + (["--config", *settings] if settings else []))


def derived_outcomes(wildcards):
    """A list of the scores whose outcomes were derived from what their jobs stored, if any were or have to be.

    Nothing asks for the outcomes themselves, so that scores which were measured without them are not measured again.
    Once it exists the list stays an input of the summary, which therefore is not made again for its absence.
    """
    scores = scores_on_disk(wildcards)
    derived = f"results/outcomes/{wildcards.suite}.json"
    return [derived] if list_missing(missing_outcomes(wildcards), scores, derived) or Path(derived).is_file() else []


def missing_outcomes(wildcards):
    return f"results/missing-outcomes/{wildcards.suite}.json"


def scores_without_outcomes(wildcards):
    """The listed scores that are still part of the suite."""
    scores = set(suite_scores(wildcards))
    listed = Path(missing_outcomes(wildcards))
    return [path for path in read_json(listed)["scores"] if path in scores] if listed.is_file() else []


def suite_pictures(wildcards):
    """The pictures that jobs of the suite made of their results."""
    cells = [c for c in shown_cells() if SUITE.kind(c.protocol) in KINDS_WITH_PICTURES]
    paths = [f"results/pictures/{c.protocol}/{c.model}/{c.dataset}.npz" for c in cells]
    return made_files(paths) if wildcards.suite == SUITE.name else []


def suite_curves(wildcards):
    """The training losses of the suite's jobs; those of finetuning are in the scores."""
    folders = {"finetune": "scores"} | dict.fromkeys(KINDS_WITH_LOSSES, "curves")
    cells = [c for c in shown_cells() if SUITE.kind(c.protocol) in folders]
    paths = [f"results/{folders[SUITE.kind(c.protocol)]}/{c.protocol}/{c.model}/{c.dataset}.json" for c in cells]
    return made_files(paths) if wildcards.suite == SUITE.name else []


def protocol_kinds(wildcards):
    """Protocol -> kind; the suites of published numbers have no protocols of their own."""
    return {c.protocol: SUITE.kind(c.protocol) for c in shown_cells()} if wildcards.suite == SUITE.name else {}


def published_version(wildcards):
    return wildcards.suite.removeprefix("published-")
