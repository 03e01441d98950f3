"""Subcommands of `ssltransfer`: arguments and printing; each imports what it does when it is called."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from ssltransfer.errors import InputError, known_names, one_line

SUITE_OPTIONS = (
    click.option("--configfile", "config_files", multiple=True, metavar="FILE", help="Suite; default: the demo suite."),
    click.option("--config", "settings", multiple=True, metavar="KEY=VALUE", help="Key of the suite, e.g. data_root."),
)


def suite_options(function: Callable) -> Callable:
    """Add the options that choose a suite."""
    for option in reversed(SUITE_OPTIONS):
        function = option(function)
    return function


def has_screen() -> bool:
    """Whether a browser can show a page: a terminal, and on Linux a display."""
    graphical = sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and graphical


def main() -> None:
    """Run the command; an error of the user's input is one line and exit code 1, wrong usage exit code 2."""
    try:
        ssltransfer(prog_name="ssltransfer")
    except InputError as error:
        sys.exit(f"Error: {one_line(error)}")
    except OSError as error:
        sys.exit(f"Error: {error.filename or ''}: {error.strerror or error}")


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ssltransfer")
@click.pass_context
def ssltransfer(context: click.Context) -> None:
    """Look into files of weights, add rows to the tables, and tell what a suite still needs.

    The measuring is done by the workflow: uv run snakemake.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@ssltransfer.command()
@click.argument("file")
@click.option("--arch", default="", help="Architecture that it should be; default: the one that is recognised.")
@click.option("--format", "format_", default="auto", show_default=True, help="How the file is read.")
def check(file: str, arch: str, format_: str) -> None:
    """Tell what is in a file of weights, and whether it would load; exit code 1 if not."""
    from ssltransfer.checkpoints.inspection import inspect_checkpoint

    found = inspect_checkpoint(Path(file).expanduser(), arch, format_)
    lines = str(found).splitlines()
    if found.loads:
        click.echo("\n".join(lines))
        return
    if found.size:
        click.echo("\n".join(lines[:-1]))
    raise InputError(found.problem)


@ssltransfer.group()
def add() -> None:
    """Add a row to the table of models or datasets."""


@add.command("model")
@click.argument("model")
@click.argument("source")
@click.option("--label", default="", help="Name in tables and figures; default: the id.")
@click.option("--family", default="", help="Group in figures.")
@click.option("--arch", default="", help="Architecture; found in a file on this machine.")
@click.option("--format", "format_", default="", help="How the file is read; found in a file on this machine.")
@click.option("--sha256", default="", help="Checksum of the published file.")
@click.option("--norm", default="", help="Input normalisation, a row of config/norms.tsv; default: the published one.")
@click.option("--pool", default="", help="Vector that is read, e.g. cls or mean; default: the network's own readout.")
@click.option("--size", default="", help="Side of the input in pixels; default: that of the protocol.")
@click.option("--source-accuracy", default="", help="Percentage, or measured:DATASET.")
@click.option("--suites", default="", help="Suites that measure it, separated by commas; default: every suite.")
@click.option("--run", default="", help="Training run that the weights are of.")
@click.option("--epoch", default="", help="Epoch of the run.")
@click.option("--table", default="config/models.tsv", show_default=True, help="Table of models.")
def add_model(model: str, source: str, table: str, format_: str, **cells: str) -> None:
    """Add MODEL, whose weights are at SOURCE: a file, or a source such as https://..., timm:NAME.TAG."""
    from ssltransfer.commands.rows import append_model, model_row
    from ssltransfer.commands.suite import DEFAULT
    from ssltransfer.config.config_files import suite_files

    row = model_row(model, source, {**cells, "format": format_})
    click.echo(append_model(Path(table), row))
    suites, known = [name.strip() for name in row.get("suites", "").split(",") if name.strip()], suite_files()
    for name in suites:
        if name not in known:
            click.echo(f"No file in config/ has suite: {name} yet; {known_names(name, known)}", err=True)
    file = known.get(suites[0] if suites else "", DEFAULT)
    click.echo(
        f"Added to {table}. Next: uv run ssltransfer plan{f' --configfile {file}' * (file != DEFAULT)}", err=True
    )


@add.command("dataset")
@click.argument("dataset")
@click.argument("source")
@click.option("--label", default="", help="Name in tables and figures; default: the id.")
@click.option("--task", default="", help="single-label (default), multi-label or images.")
@click.option("--metric", default="", help="top1 (default), mean-per-class, or map11 for multi-label.")
@click.option("--licence", default="", help="Licence of the images.")
@click.option("--reference", default="", help="Paper or page of the dataset.")
@click.option("--data-root", default="resources/datasets", show_default=True, help="Folder of original datasets.")
@click.option("--table", default="config/datasets.tsv", show_default=True, help="Table of datasets.")
def add_dataset(dataset: str, source: str, table: str, data_root: str, **cells: str) -> None:
    """Add DATASET, whose images are at SOURCE: a folder with train/CLASS/* and test/CLASS/*, or a csv file."""
    from ssltransfer.commands.rows import append_dataset, dataset_row

    row = dataset_row(dataset, source, data_root, cells)
    click.echo(append_dataset(Path(table), row))
    click.echo(
        f"Added to {table}. Next: name {dataset} in the tasks of a suite, then: uv run ssltransfer plan", err=True
    )


@ssltransfer.command()
@suite_options
@click.option("--cells", is_flag=True, help="List every missing score.")
def plan(config_files: tuple[str, ...], settings: tuple[str, ...], cells: bool) -> None:
    """Tell what a suite has and what it needs: scores, failures, work by hand, hours and disk."""
    from ssltransfer.commands.plan import describe, plan_suite
    from ssltransfer.commands.suite import read_suite

    click.echo(describe(plan_suite(read_suite(config_files, settings, check_data_root=True)), cells))


@ssltransfer.command()
@click.argument("suite")
@click.argument("folder")
@click.option("--config", "settings", multiple=True, metavar="KEY=VALUE", help="Key of the suite, e.g. data_root.")
@click.option("--author", "authors", multiple=True, metavar="NAME", help="Name for the metadata; may be repeated.")
@click.option("--predictions", is_flag=True, help="Add the predictions of each test image.")
@click.option("--features", is_flag=True, help="Add the features, and the indexes of their datasets.")
def publish(
    suite: str, folder: str, settings: tuple[str, ...], authors: tuple[str, ...], predictions: bool, features: bool
) -> None:
    """Write the scores of SUITE (a file such as config/config.yaml) into the new FOLDER, for others to adopt."""
    from ssltransfer.commands.publish import publish as publish_suite
    from ssltransfer.commands.suite import read_suite

    done = publish_suite(read_suite([suite], settings), folder, authors, predictions, features)
    for reason in done.left_out:
        click.echo(f"Left out: {reason}", err=True)
    click.echo(f"{done.folder}: {done.scores} scores. Next: docs/publishing.md, or name it in the key adopt of a suite")


@ssltransfer.command()
@suite_options
def links(config_files: tuple[str, ...], settings: tuple[str, ...]) -> None:
    """Ask which addresses of a suite's weights and datasets answer; exit code 1 if a file has none."""
    from ssltransfer.commands.links import ask_all, suite_links, unreachable
    from ssltransfer.commands.suite import read_suite

    answers = []
    for link, answer in ask_all(list(suite_links(read_suite(config_files, settings).suite))):
        click.echo(f"{link.owner}\t{answer}\t{link.address}")
        answers.append((link, answer))
    if missing := unreachable(answers):
        raise InputError(f"no address answers for {', '.join(missing)}; place the files by hand, or name other sources")


@ssltransfer.command()
@click.argument("folder")
@click.argument("bundles", nargs=-1)
def gallery(folder: str, bundles: tuple[str, ...]) -> None:
    """Write a static site of BUNDLES (folders that publish wrote, or hf:OWNER/NAME@REVISION) into the new FOLDER."""
    from ssltransfer.report.bundle import read_bundle
    from ssltransfer.report.gallery import collect_gallery, write_gallery

    found = collect_gallery([read_bundle(source) for source in bundles])
    write_gallery(found, folder)
    click.echo(f"{folder}/index.html: {len(found.models)} models, {len(found.columns)} columns of comparable scores")


@ssltransfer.command()
@suite_options
@click.option("--no-open", is_flag=True, help="Print the path alone.")
def report(config_files: tuple[str, ...], settings: tuple[str, ...], no_open: bool) -> None:
    """Open the report of a suite in the browser, or tell how to make it."""
    from ssltransfer.commands.suite import read_suite

    chosen = read_suite(config_files, settings)
    if not chosen.report.is_file():
        raise InputError(
            f"{chosen.report} is missing; make it with: {chosen.snakemake()}, or of the scores that are there with: "
            f"{chosen.with_setting('available=true').snakemake()}"
        )
    click.echo(str(chosen.report))
    if not no_open and has_screen():
        click.launch(chosen.report.resolve().as_uri())
