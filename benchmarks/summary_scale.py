"""Time, memory and size of the summary of made scores: `uv run python benchmarks/summary_scale.py --sizes 40x30`.

A suite of N models and T counted tasks in the file layout of a real one: score files with outcomes, curves, pictures
and logs, of linear, k-NN, few-shot and finetune protocols, and of detection, normals and segmentation; beside them
calibration, attention, transferability estimators and similarities. Scores follow from the ability of each model and
the difficulty of each dataset and test image, so that tests and correlations find what they find in real ones; a tenth
of the models lacks detection, normals and segmentation. Each job of the summary runs in a process of its own; printed
are its processor seconds, which are its wall time on a quiet machine, and the memory that it held at most.

Another checkout is measured beside this one with `--code PATH` (its folder ``scripts``); the same `--folder` keeps the
made scores between runs.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

REPOSITORY = Path(__file__).parents[1]
JOBS = ("make_tables", "plot_figures", "write_provenance", "write_report")
IMAGES, CLASSES, EPISODES, QUERIES, RESAMPLES = 2000, 10, 600, 75, 1000
SHARES = {"linear": 0.35, "finetune": 0.2, "fewshot": 0.25, "knn": 0.2}
"""Parts of the tasks; three more are of dense protocols."""
DENSE = {"detection-frozen-torchvision": "voc-detection", "normals": "nyuv2", "segmentation": "ade20k"}
BESIDE = 3
"""Datasets with calibration and estimators; the first two have similarities."""
ESTIMATES = {
    "h-score": (-0.2, 0.1), "h-score-shrunk": (-0.2, 0.1), "log-me": (0.5, 0.3), "ncm": (60, 8), "knn-loo": (62, 8),
    "gbc": (-20, 4), "trans-rate": (3, 0.5), "cdnv-median": (1.5, 0.2), "rank-me": (200, 40), "stable-rank": (9, 2),
    "alpha-req": (1.1, 0.1), "two-nn": (14, 2), "uniformity": (-2, 0.3),
}  # fmt: skip


def write_suite(folder: Path, models: int, tasks: int) -> dict:
    """Write model table, dataset table and suite, and return the suite's configuration."""
    import yaml

    counts = {kind: round(share * (tasks - len(DENSE))) for kind, share in SHARES.items()}
    counts["linear"] += tasks - len(DENSE) - sum(counts.values())
    names = [f"set-{number}" for number in range(max(counts.values()))]
    planned = {kind: names[:count] for kind, count in counts.items()}
    planned |= {"calibration": names[:BESIDE], "estimators": names[:BESIDE], "attention": ["fifteen-images"]}
    planned |= {protocol: [dataset] for protocol, dataset in DENSE.items()}
    dense = [f"model-{i}" for i in range(models) if i % 10]
    config = {
        "suite": "made",
        "tasks": planned,
        "models_of": dict.fromkeys(DENSE, dense),
        "models": "models.tsv",
        "datasets": "datasets.tsv",
    }
    accuracy = np.random.default_rng(1).normal(72, 6, models)
    head = ["model", "label", "family", "arch", "source", "norm", "source_accuracy", "suites"]
    rows = [
        [
            f"model-{i}", f"Model {i}", f"family-{i % 8}", "resnet50", f"https://example.org/{i}.pth", "imagenet",
            f"{min(accuracy[i] + ability(i), 97):.2f}", "made",
        ]
        for i in range(models)
    ]  # fmt: skip
    write_table(folder / "models.tsv", head, rows)
    shipped = [line.split("\t") for line in (REPOSITORY / "config/datasets.tsv").read_text().splitlines()]
    kept = [row for row in shipped[1:] if row[0] in {*DENSE.values(), "fifteen-images"}]
    sets = [
        [
            name, f"Set {i}", "single-label", "mean-per-class" if i % 3 == 0 else "top1", f"folder:{name}",
            str(CLASSES), "1000", "", str(IMAGES), "", "",
        ]
        for i, name in enumerate(names)
    ]  # fmt: skip
    members = [row for row in shipped[1:] if any(row[0] in own[4].partition(":")[2].split(",") for own in kept)]
    write_table(folder / "datasets.tsv", shipped[0], [*kept, *sets, *(row for row in members if row not in kept)])
    (folder / "made.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return config


def write_table(path: Path, head: list[str], rows: list[list[str]]) -> None:
    path.write_text("\n".join("\t".join(row) for row in [head, *rows]) + "\n")


def ability(model: int) -> float:
    """How good a model is, in standard deviations."""
    return float(np.random.default_rng([2, model]).normal())


def made_outcomes(kind: str, metric: str, dataset: str, model: int) -> list:
    """Outcomes of one score, whose noise is that of the test images."""
    from ssltransfer.analysis.uncertainty import (
        bootstrap_interval,
        episode_interval,
        stratified_interval,
        t_interval,
        wilson_interval,
    )
    from ssltransfer.results.outcome_file import Outcome, identity

    number = sum(dataset.encode())
    of_set, own = np.random.default_rng([3, number]), np.random.default_rng([4, number, len(kind), model])
    images = of_set.normal(size=IMAGES)
    level = of_set.normal(1, 0.8) + 0.4 * ability(model) + 0.25 * own.normal()
    labels = np.arange(IMAGES) % CLASSES
    right = level + images + 0.7 * own.normal(size=IMAGES) > 0
    units = {"units": "test images", "identity": identity(labels)}
    share = right.mean()
    shared = np.random.default_rng([5, number]).normal(size=RESAMPLES)

    def replicated(metric: str, setting: str, value: float, spread: float) -> Outcome:
        drawn = (value + spread * (0.8 * shared + 0.6 * own.normal(size=RESAMPLES))).astype(np.float32)
        interval = bootstrap_interval(value, drawn, metric, IMAGES, "test images")
        return Outcome(metric, setting, value, **units, replicates=drawn, interval=interval)

    def accuracy(setting: str) -> Outcome:
        if metric == "top1":
            value, interval = 100 * float(share), wilson_interval(right)
            return Outcome(metric, setting, value, **units, values=right, scale=100.0, interval=interval)
        value = 100 * float(np.mean([right[labels == c].mean() for c in range(CLASSES)]))
        interval = stratified_interval(right, labels)
        return Outcome(metric, setting, value, **units, values=right, strata=labels, scale=100.0, interval=interval)

    if kind == "fewshot":
        found = []
        for setting in ("5-shot", "20-shot", "50-shot"):
            chance = np.clip(share + 0.1 * np.random.default_rng([6, number]).normal(size=EPISODES), 0.05, 0.95)
            correct = own.binomial(QUERIES, chance)
            value, scale = 100 * float(correct.mean()) / QUERIES, 100 / QUERIES
            drawn = {"units": "episodes", "identity": f"{number:08x}", "values": correct, "scale": scale}
            found.append(Outcome("accuracy", setting, value, **drawn, interval=episode_interval(correct, QUERIES)))
        return found
    if kind == "knn":
        return [accuracy(f"{count}-nn") for count in (10, 20, 100, 200)]
    if kind in ("linear", "finetune"):
        return [accuracy("")]
    if kind == "detection":
        return [replicated(name, "", 100 * float(share) * part, 0.6) for name, part in
                (("ap50", 0.9), ("ap", 0.6), ("ap75", 0.65))]  # fmt: skip
    if kind == "segmentation":
        return [replicated(name, "", float(share) * part, 0.006) for name, part in
                (("mean-iou", 0.5), ("pixel-accuracy", 0.9))]  # fmt: skip
    if kind == "calibration":
        parts = (("", 9.0), ("-scaled", 4.0), ("-scaled-validation", 4.5))
        return [replicated("ece", f"linear{name}", size * (1.2 - float(share)), 0.2) for name, size in parts]
    if kind == "normals":
        angles = np.clip(20 - 2 * level + 6 * images + own.normal(size=IMAGES), 1, 90)
        values = {"mean-angle": (angles, 1.0)} | {
            f"within-{degrees:g}": (np.clip((degrees - angles) / 40 + 0.5, 0, 1), 100.0)
            for degrees in (11.25, 22.5, 30)
        }
        return [
            Outcome(name, "", scale * float(each.mean()), **units, values=each.astype(np.float32), scale=scale,
                    interval=t_interval(scale * each, name, "test images"))
            for name, (each, scale) in values.items()
        ]  # fmt: skip
    diffusion = np.clip(50 + 5 * level + 10 * images[:15] + own.normal(size=15), 1, 99)
    outcome = Outcome(
        "attentive-diffusion", "", float(diffusion.mean()), "images", "attention", values=diffusion,
        interval=t_interval(diffusion, "attentive-diffusion", "images"),
    )  # fmt: skip
    return [outcome]


def write_cell(suite, cell, about: dict) -> None:
    """Write score, outcomes, log, and where a real job leaves them, curve and pictures."""
    from ssltransfer.files import write_json
    from ssltransfer.report.score_check import expected_entries
    from ssltransfer.results import score_file
    from ssltransfer.results.metric_info import METRICS
    from ssltransfer.results.picture_file import Pictures, save_pictures
    from ssltransfer.settings import complete

    kind, number = suite.kind(cell.protocol), int(cell.model.removeprefix("model-"))
    where = Path(cell.protocol, cell.model, cell.dataset)
    expected = expected_entries(suite, cell)
    rng = np.random.default_rng([7, number, sum(cell.dataset.encode())])
    if kind == "estimators":
        drawn = {
            name: rng.normal(mean, spread) + spread * ability(number) for name, (mean, spread) in ESTIMATES.items()
        }
        values = [
            {"metric": name, "setting": "", "value": float(value), "unit": METRICS[name].unit}
            for name, value in drawn.items()
        ]
        outcomes = []
    else:
        outcomes = made_outcomes(kind, suite.datasets[cell.dataset]["metric"], cell.dataset, number)
        values = [
            {"metric": o.metric, "setting": o.setting, "value": o.value, "unit": METRICS[o.metric].unit}
            for o in outcomes
        ]
    losses = (2.5 * np.exp(-np.arange(50) / 20) + 0.1 * rng.random(50)).round(4).tolist()
    more, details = {}, {"images": {"train": expected.get("images.train", 0), "test": expected.get("images.test", 0)}}
    if kind == "linear":
        penalties = [{"lambda": 10.0**i, "validation": 50 + i, "converged": True, "gap": 1e-7} for i in range(-6, 5)]
        more = {"selected": {"lambda": 1.0, "validation": 55.0}, "curve": {"imagenet": penalties}}
    elif kind == "finetune":
        choice = {"augmentation": "crop-flip", "weight_decay": 0.0, "layer_decay": 1}
        rates = (0.1, 0.01, 0.001, 0.0001)
        members = [
            choice | {"learning_rate": rate, "losses": losses, "validation": 60.0 + 100 * rate} for rate in rates
        ]
        details["refit"] = {"interval": 100, "losses": losses}
        more = {"selected": choice | {"learning_rate": 0.1}, "curve": members}
    elif kind in ("normals", "segmentation", "detection"):
        write_json(Path("results/curves", f"{where}.json"), {"interval": 100, "losses": losses})
    if kind in ("attention", "normals", "segmentation", "detection"):
        columns = 15 if kind == "attention" else 6
        scene = np.random.default_rng(8).integers(0, 256, (columns, 6, 6, 3)).astype(np.uint8)
        scene = scene.repeat(16, axis=1).repeat(16, axis=2)
        pictures = Pictures([f"image-{i}" for i in range(columns)], {"Image": scene}, {"Output": 255 - scene})
        path = Path("results/pictures", f"{where}.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_pictures(path, pictures)
    norm = expected["preprocessing.norm"]
    cost = {"seconds": 60.0, "peak_memory_mib": 900, "machine": "made", "device": "cpu"}
    images, classes = (expected.get(f"coverage.{part}.promised", 0) for part in ("images", "classes"))
    coverage = {
        "images": {"used": images, "promised": images},
        "skipped": 0,
        "classes": {"used": classes, "promised": classes, "left_out": []},
    }
    measured = {"detection": "detection-frozen"}.get(kind, kind)
    measurement = score_file.Measurement(
        kind=measured,
        values=values,
        checkpoint={"source": expected["checkpoint.source"], "files": {"weights": f"{number:064x}"}},
        preprocessing={"transform": "resize224", "norm": norm[0], "candidates": norm},
        details=details,
        warnings=[],
        more=more,
        coverage=coverage,
        schedule=score_file.FULL if kind in ("finetune", "normals", "segmentation", "detection") else None,
        outcomes=outcomes,
    )
    path = Path("results/scores", f"{where}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {"protocol": expected["versions.protocol"], "numpy": np.__version__}
    settings = complete(suite.job_settings(cell.protocol, cell.model))
    score_file.write(path, about, measurement, settings, own, cost)
    log = Path(f"logs/evaluate_{kind}", f"{where}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"2026-01-01 00:00:00,000 cost {json.dumps(cost)}\n")


def write_similarities(suite) -> None:
    """Write the similarities of all pairs of models on two datasets."""
    from ssltransfer.files import write_json

    models = list(suite.models)
    for number in range(2):
        rng, pairs = np.random.default_rng([9, number]), []
        places = rng.normal(size=(len(models), 3))
        for i, model in enumerate(models):
            for j in range(i + 1, len(models)):
                value = float(np.exp(-0.3 * np.linalg.norm(places[i] - places[j])))
                ends = {"value": value, "low": max(0, value - 0.03), "high": min(1, value + 0.03)}
                pairs.append({"model": model, "other": models[j]} | ends | {"biased": value, "chance": 0.004})
        about = {"protocol": "estimators", "dataset": f"set-{number}", "images": 2000, "left_out": {}, "pairs": pairs}
        write_json(f"results/similarity/set-{number}/estimators.made.json", about)


def make_scores(folder: Path, models: int, tasks: int) -> None:
    """Write the suite and all that its jobs would leave; nothing where this was done before."""
    from dataclasses import asdict

    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_suite(folder, models, tasks)
    suite = made_suite()
    for cell in suite.cells():
        write_cell(suite, cell, asdict(cell))
    write_similarities(suite)
    (folder / "done").touch()


def made_suite():
    """The suite in the working directory."""
    import yaml

    from ssltransfer.config.load import load_suite
    from ssltransfer.files import package_data

    config = yaml.safe_load(Path("made.yaml").read_text())
    return load_suite(config, package_data("workflow/schemas"), package_data("."))


def run_job(job: str, output: Path) -> None:
    """Run one job of the summary as its script does."""
    suite = made_suite()
    cells = [(suite.kind(cell.protocol), cell) for cell in suite.cells()]

    def files(base: str, suffix: str, kinds: tuple[str, ...] | None = None) -> list[str]:
        paths = [
            f"results/{base}/{c.protocol}/{c.model}/{c.dataset}{suffix}" for k, c in cells if not kinds or k in kinds
        ]
        return [path for path in paths if Path(path).exists()]

    tables, figures = output / "tables", output / "figures"
    if job == "make_tables":
        from ssltransfer.report.table_folder import make_tables

        keys = ("model", "label", "family", "source_accuracy")
        rows = [{key: row[key] for key in keys} for row in suite.models.values()]
        labels = {name: row["label"] for name, row in suite.datasets.items()}
        scores, similar = files("scores", ".json"), sorted(map(str, Path("results/similarity").rglob("*.made.json")))
        make_tables(tables, scores, rows, labels, {}, "v2", {}, "", suite, None, similar)
    elif job == "plot_figures":
        from ssltransfer.report.figures import plot_figures

        kinds = {cell.protocol: kind for kind, cell in cells}
        curves = files("scores", ".json", ("finetune",)) + files("curves", ".json")
        plot_figures(figures, tables, files("pictures", ".npz"), curves, kinds)
    elif job == "write_provenance":
        from ssltransfer.report.provenance import write_provenance

        write_provenance(output / "provenance.json", "made", tables, suite.config)
    else:
        from ssltransfer.report.html import write_report

        write_report(output / "report.html", "made", "Made scores", tables, figures, output / "provenance.json")


def peak() -> float:
    """MiB that this process held at most."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


class Took(NamedTuple):
    """Processor seconds and MiB of one job; None where it was stopped."""

    seconds: float
    memory: float | None


def measure(job: str, folder: Path, output: Path, code: Path, limit: float) -> Took:
    """Run a job in a process of its own."""
    command = [sys.executable, __file__, "--job", job, "--output", str(output), "--code", str(code)]
    start = processor_seconds()
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as Snakemake starts it
    try:
        done = subprocess.run(
            command, cwd=folder, env=one_thread, capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return Took(limit, None)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return Took(processor_seconds() - start, float(done.stdout.split()[-1]))


def processor_seconds() -> float:
    """Of all processes that were waited for: other work on the machine does not lengthen it as much as wall time."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def largest_figure(figures: Path) -> str:
    """Name and height of the tallest figure."""
    heights = {}
    for path in figures.glob("*.svg"):
        with path.open() as file:
            heights[path.stem] = float(re.search(r'height="([\d.]+)pt"', file.read(2000))[1]) / 72
    name = max(heights, key=heights.__getitem__)
    return f"{name} {heights[name]:.0f} in"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="*", default=["40x30", "200x12", "200x60"], help="MODELSxTASKS")
    parser.add_argument("--folder", type=Path, help="where made scores are kept; a temporary one if not given")
    parser.add_argument("--code", type=Path, nargs="*", default=[REPOSITORY / "scripts"], help="folders `scripts`")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a job is stopped")
    parser.add_argument("--job", choices=JOBS)
    parser.add_argument("--make", nargs=2, type=int)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.job or options.make:
        sys.path.insert(0, str(options.code[0]))
        if options.make:
            make_scores(Path(), *options.make)
        else:
            run_job(options.job, options.output)
        print(peak())
        return
    heads = ["models x tasks", "code", *(job.replace("_", " ") for job in JOBS), "all", "report", "tables", "tallest"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    with tempfile.TemporaryDirectory() as temporary:
        for size in options.sizes:
            folder = (options.folder or Path(temporary)).resolve() / size
            folder.mkdir(parents=True, exist_ok=True)
            models, tasks = size.split("x")
            command = [sys.executable, __file__, "--make", models, tasks, "--code", str(options.code[0].resolve())]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            for number, code in enumerate(options.code):
                output, took = folder / f"output-{number}", []
                for job in JOBS:
                    took.append(measure(job, folder, output, code.resolve(), options.limit))
                    if took[-1].memory is None:
                        break
                cells = [f"{t.seconds:.0f} s, {t.memory:.0f} MiB" if t.memory else f"> {t.seconds:.0f} s" for t in took]
                cells += ["" for _ in JOBS[len(took) :]]
                whole = len(took) == len(JOBS) and took[-1].memory is not None
                cells.append(f"{sum(t.seconds for t in took):.0f} s" if whole else "")
                tables = sum(path.stat().st_size for path in (output / "tables").glob("*.*")) / 2**20
                report, tallest = "", ""
                if whole:
                    report = f"{(output / 'report.html').stat().st_size / 2**20:.1f} MiB"
                    tallest = largest_figure(output / "figures")
                name = code.resolve().parent.name
                print(
                    f"| {size} | {name} | {' | '.join(cells)} | {report} | {tables:.0f} MiB | {tallest} |", flush=True
                )


if __name__ == "__main__":
    main()
