"""The step-by-step pages of docs/ in a fresh clone: their commands run as they are printed, on the toy suite."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from layouts import picture
from torch import nn

from ssltransfer.models.resnet import build_resnet
from ssltransfer.report.scatter_figures import panel_scores
from ssltransfer.report.table_folder import read_results
from workflow import REPOSITORY, environment, planned

#: The pages speak of the demo suite; the same steps with the toy suite take seconds.
TOY = {
    "tiny-simclr": "toy-simclr",
    "linear-r32": "toy-linear",
    "fewshot-r32": "toy-fewshot",
    "resize32": "resize16",
    "resnet50": "resnet-1x1x1x1-w4",
    "shapes": "digits",
    "results/demo": "results/toy",
    "\\tdemo\\t": "\\ttoy\\t",
    "\\tdemo\\n": "\\ttoy\\n",
    "ways: 10": "ways: 10\n    episodes: 20",
}


def blocks(page, data):
    """Kind and text of the fenced blocks of a page."""
    text = (REPOSITORY / "docs" / f"{page}.md").read_text()
    for old, new in (TOY | {"/data/": f"{data}/"}).items():
        text = text.replace(old, new)
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def clone(folder, finished=None):
    """A clone with the toy suite in place of the demo suite, in which the suite has run if `finished` is given."""
    listed = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        path = REPOSITORY / name
        if name and (path.is_file() or path.is_symlink()) and not name.startswith(("tests/", "docs/images/")):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target, follow_symlinks=False)
    shutil.copytree(REPOSITORY / "tests/config", folder / "config", dirs_exist_ok=True)
    for name in ("results", ".snakemake/metadata") if finished else ():
        shutil.copytree(finished / name, folder / name, copy_function=shutil.copy2, dirs_exist_ok=True)
    return folder


def merge(old, new):
    """The old settings with the new ones in their places."""
    return old | {k: merge(old.get(k, {}), v) if isinstance(v, dict) else v for k, v in new.items()}


def follow(page, folder, data, command=""):
    """Do what a page says; returns what its last command with this word prints."""
    # The environment of this test stands for the one that uv would make.
    variables = environment() | {"UV_PROJECT_ENVIRONMENT": sys.prefix, "UV_NO_SYNC": "1"}
    output = ""
    for kind, text in blocks(page, data):
        if kind == "bash":
            done = subprocess.run(
                ["bash", "-ec", text], cwd=folder, env=variables, capture_output=True, text=True, check=False
            )
            printed = done.stdout + done.stderr
            assert done.returncode == 0, printed[-4000:]
            output = printed if command in text else output
        elif kind == "yaml":
            suite = folder / "config/config.yaml"
            merged = merge(yaml.safe_load(suite.read_text()), yaml.safe_load(text))
            suite.write_text(yaml.safe_dump(merged, sort_keys=False))
        elif kind == "python":
            (folder / "Snakefile").write_text(text)
    return output


def table(folder, suite="toy"):
    return (folder / f"results/{suite}/tables/scores.csv").read_text()


def measured(folder, model):
    """Kinds of protocols of which the suite's table has scores of a model."""
    scores = pd.read_csv(folder / "results/toy/tables/scores.csv")
    return set(scores.loc[scores["model"] == model, "kind"])


FROZEN = {"linear", "knn", "fewshot", "label-efficiency", "estimators", "calibration"}
EVALUATIONS = {
    *("evaluate_linear", "evaluate_knn", "find_neighbours", "evaluate_fewshot", "evaluate_calibration"),
    *("evaluate_label_efficiency", "evaluate_estimators"),
}


def test_add_a_model(finished, tmp_path):
    folder = clone(tmp_path / "clone", finished)
    torch.save(build_resnet("resnet-1x1x1x1-w4").state_dict(), tmp_path / "my-net.pth")
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), tmp_path / "my-vit.pth")
    output = follow("add-a-model", folder, tmp_path, "uv run snakemake")
    assert "Report: results/mine/report.html" in output and "rule pretrain_model" not in output
    assert table(folder, "mine").count("my-net,") == 2 + 1  # linear, few-shot
    assert "My net" in (folder / "results/mine/report.html").read_text()
    # The transformer that the page adds at its end; the other one would be downloaded.
    rows = (folder / "config/models.tsv").read_text().splitlines()
    assert "timm:vit_small_patch16_224.dino" in rows[-2] and "timm:vit_tiny_patch16_224" in rows[-1]
    (folder / "config/models.tsv").write_text("\n".join([*rows[:-2], rows[-1]]) + "\n")
    variables = environment() | {"UV_PROJECT_ENVIRONMENT": sys.prefix, "UV_NO_SYNC": "1"}
    command = ["uv", "run", "snakemake", "--configfile", "config/mine.yaml"]
    subprocess.run(command, cwd=folder, env=variables, capture_output=True, check=True)
    assert table(folder, "mine").count("my-vit,") == 3


def test_add_your_own_module(finished, tmp_path):
    folder = clone(tmp_path / "clone", finished)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3))
    torch.save(nn.Sequential(*layers).state_dict(), tmp_path / "my-net.pth")
    output = follow("add-your-own-module", folder, tmp_path)
    assert "Report: results/toy/report.html" in output and "rule pretrain_model" not in output
    assert measured(folder, "my-net") == FROZEN
    score = json.loads((folder / "results/scores/toy-linear/my-net/digits.json").read_text())
    assert score["checkpoint"]["network"] == {"width": 16, "strides": [4], "channels": [16]}
    report = (folder / "results/toy/report.html").read_text()
    assert "python:nets/mine.py:build" in report
    assert not {rule for rule, _ in planned(folder)} - {"all"}
    with (folder / "nets/mine.py").open("a") as file:
        file.write("\n# another network\n")
    again = {rule for rule, model in planned(folder) if model}
    assert again == {"convert_checkpoint", "extract_features"} | EVALUATIONS


def test_add_features(finished, tmp_path):
    folder = clone(tmp_path / "clone", finished)
    output = follow("add-features", folder, tmp_path)
    assert "Report: results/toy/report.html" in output and "rule extract_features" not in output
    assert measured(folder, "my-net") == {"linear", "fewshot"}
    score = json.loads((folder / "results/scores/toy-linear/my-net/digits.json").read_text())
    assert score["checkpoint"]["source"] == "features:features/my-net" and score["values"][0]["value"] > 30
    given = np.load(folder / "features/my-net/digits.npz")
    imported = np.load(folder / "results/features/my-net/digits/resize16.none.npy")
    np.testing.assert_array_equal(imported, given["features"])
    assert "given features" in (folder / "results/toy/report.html").read_text()
    reordered = {name: given[name][::-1] for name in ("names", "features")}
    np.savez(folder / "features/my-net/digits.npz", **reordered)
    again = {rule for rule, model in planned(folder) if model}
    assert again == {"import_features"} | EVALUATIONS


@pytest.mark.slow
def test_my_model_stands_beside_the_published_ones_on_the_datasets_that_i_have(tmp_path):
    """The suite config/mine.yaml on small data of the user's own under the names of the paper's datasets."""
    folder = clone(tmp_path / "clone")
    suite = yaml.safe_load((REPOSITORY / "config/mine.yaml").read_text())
    suite["tasks"] = {"linear": ["dtd", "flowers"], "fewshot": ["eurosat"]}
    (folder / "config/mine.yaml").write_text(yaml.safe_dump(suite))
    torch.save(build_resnet("resnet-1x1x1x1-w4").state_dict(), folder / "my-net.pth")
    with (folder / "config/models.tsv").open("a") as rows:
        rows.write("my-net\tMy net\tcontrastive\tresnet-1x1x1x1-w4\tfile:my-net.pth\t\t\t\t74.3\tmine\n")
    own = {"dtd": ("top1", 4, 3), "flowers": ("mean-per-class", 4, 3), "eurosat": ("top1", 36, 0)}
    lines = (folder / "config/datasets.tsv").read_text().splitlines()
    rows = [line for line in lines if line.partition("\t")[0] not in own]
    for name, (metric, train, test) in own.items():
        rows.append(f"{name}\t{name}\tsingle-label\t{metric}\tfolder:{name}\t5\t{5 * train}\t0\t{5 * test}\t\t")
        for number, i in np.ndindex(5, train + test):
            part = "train" if i < train else "test"
            picture(folder / f"data/{name}/{part}/{number}/{i}.png", seed=1000 * number + i)
    (folder / "config/datasets.tsv").write_text("\n".join(rows) + "\n")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "config/mine.yaml"]
    done = subprocess.run(
        [*command, "--config", "data_root=data"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results = read_results(folder / "results/mine/tables")
    drawn = {panel.name: panel_scores(results, panel) for panel in results.tasks.figure_panels}
    assert {task.dataset for task in drawn["linear"].tasks} == {"dtd", "flowers"}
    assert drawn["linear"].mean.notna().sum() == 15 and drawn["linear"].row["n"] == 15
    caption = json.loads((folder / "results/mine/figures/captions.json").read_text())["transfer"]
    assert "DTD" in caption or "dtd" in caption
    report = (folder / "results/mine/report.html").read_text()
    assert "My net" in report and "BYOL" in report


def test_add_a_dataset(finished, tmp_path):
    folder = clone(tmp_path / "clone", finished)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("robin", "wren", "tit"):
            for i in range(count):
                picture(tmp_path / "birds" / split / name / f"{i}.jpg", seed=i)
    follow("add-a-dataset", folder, tmp_path)
    assert table(folder).count(",birds,") == 3


@pytest.mark.slow
def test_run_one_protocol(tmp_path):
    folder = clone(tmp_path / "clone")
    output = follow("run-one-protocol", folder, tmp_path)
    assert re.fullmatch(r"\[\{'metric': 'top1', .*'unit': 'percent', 'low': .*, 'level': 0.95\}\]\n", output)
    scores = {str(path.relative_to(folder / "results/scores")) for path in folder.glob("results/scores/*/*/*.json")}
    assert scores == {f"toy-{kind}/toy-simclr/digits.json" for kind in ("linear", "fewshot")}


def test_the_report_is_named_only_where_it_was_asked_for(finished, tmp_path):
    folder = clone(tmp_path / "clone", finished)
    score = "results/scores/toy-fewshot/toy-random/digits.json"
    (folder / score).unlink()
    assert (folder / "results/toy/report.html").exists()
    command = [sys.executable, "-m", "snakemake", score, "--cores", "1"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True)
    assert (folder / score).exists()
    assert "Report:" not in done.stdout + done.stderr


def test_change_settings(finished, tmp_path):
    folder = clone(tmp_path / "clone", finished)
    output = follow("change-settings", folder, tmp_path)
    assert "extract_features" not in output
    assert table(folder).count(",fewshot-ten-ways,") == 3


def test_use_as_a_module(finished, tmp_path):
    clone(tmp_path / "project/ssltransfer")
    folder = tmp_path / "project"
    for name in ("results", ".snakemake/metadata"):
        shutil.copytree(finished / name, folder / name, copy_function=shutil.copy2)
    shutil.rmtree(folder / "results/toy")
    (folder / "results/scores/toy-fewshot/toy-random/digits.json").unlink()
    output = follow("use-as-a-module", folder, tmp_path)
    assert "rule transfer_evaluate_fewshot" in output and "rule transfer_extract_features" not in output, output
    assert (folder / "best-model.txt").read_text().startswith("model,protocol,kind\ntoy-")


PAGES = sorted(
    str(path.relative_to(REPOSITORY)) for pattern in ("*.md", "[bcd]*/*.md") for path in REPOSITORY.glob(pattern)
)


def anchors(text):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", (REPOSITORY / page).read_text()):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (REPOSITORY / page).parent / name if name else REPOSITORY / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("benchmarks/")])
def test_lines_of_prose_are_short(page):
    """Tables, code, headings and words without a blank may be longer."""
    text = re.sub(r"^```.*?^```$", "", (REPOSITORY / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        prose = not re.match(r"\||    \S|#", line) and " " in line.strip(" -*")
        assert len(line) <= 122 or not prose, line


def test_every_page_is_in_the_index():
    index = (REPOSITORY / "docs/README.md").read_text()
    pages = {path.name for pattern in ("[a-z]*.md", "*.ipynb") for path in (REPOSITORY / "docs").glob(pattern)}
    assert set(re.findall(r"\]\((.*?)\)", index)) == pages


@pytest.mark.parametrize("page", PAGES)
def test_printed_commands_name_targets_before_options(page):
    text = (REPOSITORY / page).read_text().replace("\\\n", " ")
    for command in re.findall(r"^.*\bsnakemake (.*)$", text, re.MULTILINE):
        # Options such as --configfile and --sdm take every word that follows, a target too.
        assert not re.search(r"--(configfile|config|sdm)\b[^`#]* (results/|published\b|checkpoints\b)", command), (
            command
        )


@pytest.mark.parametrize("page", PAGES)
def test_printed_rows_have_the_columns_of_their_table(page):
    for row, table in re.findall(r"printf '(.*?)\\n' >> (\S+)", (REPOSITORY / page).read_text()):
        columns = (REPOSITORY / table).read_text().partition("\n")[0].split("\t")
        cells = row.split("\\t")
        if table.endswith("models.tsv"):  # whose rows may end early
            cells += [""] * (len(columns) - len(cells))
            assert all(dict(zip(columns, cells, strict=True))[name] for name in ("model", "arch", "source"))
        assert len(cells) == len(columns)
