"""The table of the paper's datasets in the documents: how each comes, its variants, and what real samples prove."""

from test_hub_datasets import MIRRORED
from test_indexers import REAL

from ssltransfer.config.suite import Suite
from ssltransfer.config.table_file import read_table
from ssltransfer.datasets import parse_dataset_source
from ssltransfer.datasets.downloads import DOWNLOADS
from workflow import REPOSITORY

PAPER = (
    *(
        "aircraft",
        "caltech101",
        "cars",
        "cifar10",
        "cifar100",
        "dtd",
        "flowers",
        "food101",
        "pets",
        "sun397",
        "voc2007",
    ),
    *("cropdiseases", "eurosat", "isic", "chestx", "voc-detection", "nyuv2", "ade20k"),
)
"""Rows of the datasets that the paper transfers to (its conference version)."""
HEADER = [
    "| Dataset | How | Size | Login | Rows of variants | Copies without a row | Shown on a real sample |",
    "| --- | --- | --- | --- | --- | --- | --- |",
]


def page_table():
    """The lines of the table, from what the code and the table of datasets say."""
    rows = {row["dataset"]: row for row in read_table(REPOSITORY / "config/datasets.tsv")}
    lines = list(HEADER)
    for name in PAPER:
        source = parse_dataset_source(rows[name]["source"]).name
        download = DOWNLOADS[source]
        how = "automatic" if download.files else f"by hand: {download.reason}"
        variants = [f"`{other}`" for other in rows if other.startswith(f"{name}-")]
        proof = ["layout"] * ((source, "") in REAL) + ["copy on a hub"] * (source in MIRRORED)
        cells = [rows[name]["label"], how, download.size, download.login or "none", ", ".join(variants) or "-"]
        lines.append(f"| {' | '.join([*cells, download.copies or '-', ', '.join(proof) or 'no sample'])} |")
    return lines


def test_the_page_says_how_each_dataset_of_the_paper_comes():
    page = (REPOSITORY / "docs/datasets.md").read_text().splitlines()
    start = page.index(HEADER[0])
    expected = page_table()
    assert page[start : start + len(expected)] == expected, "write:\n" + "\n".join(expected)
    assert page[start + len(expected)] == ""


def test_the_paper_has_eighteen_datasets_and_its_suite_names_them(monkeypatch):
    from ssltransfer.commands.suite import read_suite

    monkeypatch.chdir(REPOSITORY)
    suite: Suite = read_suite(["config/paper-v2.yaml"]).suite
    classified = {cell.dataset for cell in suite.cells() if suite.kind(cell.protocol) not in ("inversion", "attention")}
    assert len(set(PAPER)) == 18 and set(PAPER) <= classified | {"caltech101"}


def test_a_copy_on_a_hub_is_a_row_of_its_own_that_says_so():
    copies = [row for row in read_table(REPOSITORY / "config/datasets.tsv") if row["source"].startswith("hf:")]
    assert {row["dataset"] for row in copies} == {"cars-hub", "isic-hub"}
    for row in copies:
        original = row["dataset"].removesuffix("-hub")
        assert original in PAPER and row["label"].endswith("(hub copy)"), row["dataset"]
