"""The gallery: comparable scores side by side, small, and usable with keyboard and phone."""

import re
from dataclasses import replace

import numpy as np
import pytest
from browser import CHROMIUM, browser

from ssltransfer.errors import InputError
from ssltransfer.files import read_json, write_json
from ssltransfer.report.bundle import read_bundle, write_checksums, write_manifest
from ssltransfer.report.gallery import collect_gallery, write_gallery
from ssltransfer.results.outcome_file import Outcome, save_outcomes
from ssltransfer.results.outcome_header import outcome_path

HASH = "a" * 64
LINEAR = {"kind": "linear", "transform": "resize32", "normalisation": "per-model", "seed": 0}


def write_bundle(folder, name, values, index=HASH, settings=LINEAR, seed=None):
    """A bundle with linear scores {(model, dataset): value}; with a seed also the images that are right."""
    models = dict.fromkeys(model for model, _ in values)
    datasets = dict.fromkeys(dataset for _, dataset in values)
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for (model, dataset), value in values.items():
        path = folder / "scores" / "block" / model / f"{dataset}.json"
        if seed is not None:
            right = rng.random(1000) < value / 100
            value = 100 * float(right.mean())
            outcome = Outcome("top1", "", value, "test images", index, right, scale=100.0)
            save_outcomes(outcome_path(path), [outcome])
        entry = {"metric": "top1", "setting": "", "value": value, "unit": "percent"}
        cell = {"model": model, "dataset": dataset, "protocol": "block", "kind": "linear"}
        write_json(path, cell | {"values": [entry], "settings": settings, "versions": {"protocol": 2}})
    row = {"family": "contrastive", "arch": "timm:vit_small_patch16_224", "norm": "imagenet", "pool": ""}
    write_manifest(
        folder,
        {
            "name": name,
            "title": f"Suite {name}",
            "date": "2026-01-02",
            "models": {m: row | {"label": f"<{m}>", "source": "timm:vit_small_patch16_224.dino"} for m in models},
            "datasets": {d: {"label": d.title(), "source": f"original:{d}", "index": index} for d in datasets},
            "recipes": {},
            "norms": {},
            "components": {},
            "versions": {},
        },
    )
    write_checksums(folder)
    return read_bundle(str(folder))


def test_names_that_the_manifest_lacks_are_one_line_or_stand_for_themselves(tmp_path):
    bundle = write_bundle(tmp_path / "a", "one", {("m", "digits"): 50.0})
    assert (
        collect_gallery([replace(bundle, manifest=bundle.manifest | {"datasets": {}})]).datasets["digits"] == "digits"
    )
    with pytest.raises(InputError, match="bundle.json: models: m is missing"):
        collect_gallery([replace(bundle, manifest=bundle.manifest | {"models": {}})])


def test_no_bundle_takes_the_page_of_another_model(tmp_path):
    paper = collect_gallery([]).models["paper-simclr-v1"]
    first = write_bundle(tmp_path / "a", "paper-simclr", {("v1", "digits"): 99.0})
    second = write_bundle(tmp_path / "b", "a-b", {("c", "digits"): 1.0})
    third = write_bundle(tmp_path / "c", "a", {("b-c", "digits"): 2.0})
    gallery = collect_gallery([first, second, third])
    assert gallery.models["paper-simclr-v1"] == paper and len(gallery.models) == 14 + 3
    (column,) = own_columns(gallery)
    entries = {gallery.models[model].entry: value[0] for model, value in column.values.items()}
    assert entries == {"Suite paper-simclr": 99.0, "Suite a-b": 1.0, "Suite a": 2.0}


def test_a_site_does_not_tell_where_bundles_are_on_this_machine(tmp_path):
    bundle = write_bundle(tmp_path / "their-bundle", "one", {("m", "digits"): 50.0})
    write_gallery(collect_gallery([bundle]), tmp_path / "site")
    assert "their-bundle, 2026-01-02" in (tmp_path / "site/index.html").read_text()
    for path in (tmp_path / "site").rglob("*.html"):
        assert str(tmp_path) not in path.read_text(), path


@pytest.mark.parametrize("settings", [LINEAR | {"kind": ["linear"]}, {"kind": "normals", "sides": 5}, {"kind": 1}])
def test_settings_that_are_none_are_compared_as_they_are(tmp_path, settings):
    bundle = write_bundle(tmp_path / "a", "one", {("m", "digits"): 50.0}, settings=settings)
    assert len(own_columns(collect_gallery([bundle]))) == 1


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"name": "one\n"}, r"name: found 'one\\n'"),
        ({"name": "a" * 101}, "name: .* at most 100 characters"),
        ({"title": "a\nb"}, "title: found"),
        ({"datasets": {"digits\n": {"label": "a", "source": "a", "index": HASH}}}, "digits"),
        ({"recipes": {"a": {"dataset": ["a"]}}}, "recipes.a.dataset"),
    ],
)
def test_a_manifest_names_what_files_and_pages_can_be_called(tmp_path, change, found):
    write_bundle(tmp_path / "a", "one", {("m", "digits"): 50.0})
    path = tmp_path / "a/bundle.json"
    write_json(path, read_json(path) | change)
    write_checksums(tmp_path / "a")
    with pytest.raises(InputError, match=found) as error:
        read_bundle(str(tmp_path / "a"))
    assert "bundle.json" in str(error.value) and "\n" not in str(error.value)


def own_columns(gallery):
    return [column for column in gallery.columns if "published" not in column.block]


def test_models_of_one_label_are_told_apart_by_their_bundle(tmp_path):
    bundles = [write_bundle(tmp_path / name, name, {("m", "digits"): 50.0}) for name in ("one", "two")]
    bundles[0].manifest["models"]["m"]["label"] = "Supervised"
    models = collect_gallery(bundles).models
    assert models["one-m"].label == "Supervised (one)" and models["paper-supervised"].label == "Supervised (paper)"
    assert models["two-m"].label == "<m>"
    bundles[1].manifest["models"] = {name: {**bundles[1].manifest["models"]["m"], "label": "Twin"} for name in "mn"}
    models = collect_gallery(bundles).models
    assert len({model.label for model in models.values()}) == len(models)


def test_a_site_shows_no_path_of_the_one_who_writes_it(tmp_path):
    bundle = write_bundle(tmp_path / "one", "one", {("m", "digits"): 50.0})
    bundle.manifest["models"]["m"] |= {"source": "file:/home/me/secret/net.pth", "arch": "python:/home/me/net.py:build"}
    write_gallery(collect_gallery([bundle]), tmp_path / "site")
    text = "".join(path.read_text() for path in (tmp_path / "site").rglob("*.html"))
    assert str(tmp_path) not in text and "/home/me" not in text
    assert "file:net.pth" in text and "python:net.py:build" in text


def test_the_paper_is_the_first_entry_and_comes_with_intervals():
    gallery = collect_gallery([])
    assert [title for title, _ in gallery.entries] == ["How Well Do Self-Supervised Models Transfer? (published)"]
    assert len(gallery.models) == 14
    shots = next(c for c in gallery.columns if c.kind == "fewshot" and c.dataset == "isic" and c.setting == "20-shot")
    assert re.fullmatch(r"\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]", shots.text("paper-byol"))
    assert not any(column.tied or column.tested for column in gallery.columns)


def test_only_comparable_scores_stand_in_one_column(tmp_path):
    first = write_bundle(tmp_path / "a", "one", {("m", "digits"): 50.0})
    same = write_bundle(tmp_path / "b", "one", {("m", "digits"): 60.0})
    images = write_bundle(tmp_path / "c", "other-images", {("m", "digits"): 70.0}, index="b" * 64)
    settings = write_bundle(tmp_path / "d", "other-settings", {("m", "digits"): 80.0}, settings=LINEAR | {"seed": 1})
    columns = own_columns(collect_gallery([first, same, images, settings]))
    found = {(c.block, c.name): {model: value[0] for model, value in c.values.items()} for c in columns}
    assert found == {
        ("Many-shot linear (block)", "Top-1 accuracy"): {"one-m": 50.0, "one-2-m": 60.0},
        ("Many-shot linear (block)", "images, variant 2, Top-1 accuracy"): {"other-images-m": 70.0},
        ("Many-shot linear (block, variant 2)", "Top-1 accuracy"): {"other-settings-m": 80.0},
    }


def test_models_that_no_test_tells_from_the_best_are_marked(tmp_path):
    values = {("good", "digits"): 80.0, ("as-good", "digits"): 79.5, ("bad", "digits"): 40.0}
    bundle = write_bundle(tmp_path / "a", "one", values, seed=0)
    without = write_bundle(tmp_path / "b", "two", {("unknown", "digits"): 20.0})
    (column,) = own_columns(collect_gallery([bundle, without]))
    marks = {model: column.mark(model) for model in column.values}
    assert sorted(marks.values()) == ["", "", "best", "tied"]
    assert {model for model, mark in marks.items() if not mark} == {"one-bad", "two-unknown"}
    assert column.tested == {"one-good", "one-as-good", "one-bad"}
    assert column.ranked()[2:] == ["one-bad", "two-unknown"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of 100 models and 40 tasks."""
    folder = tmp_path_factory.mktemp("gallery")
    rng = np.random.default_rng(0)
    values = {(f"model-{m}", f"dataset-{d}"): round(100 * rng.random(), 4) for m in range(100) for d in range(40)}
    write_gallery(collect_gallery([write_bundle(folder / "bundle", "large", values)]), folder / "site")
    return folder / "site"


def test_a_hundred_models_on_forty_tasks_take_less_than_two_megabytes(site):
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 2_000_000
    assert len(list((site / "models").iterdir())) == 114
    page = (site / "models/large-model-7.html").read_text()
    assert "&lt;model-7&gt;" in page and "<model-7>" not in page and page.count('<th scope="row">') == 40


def test_a_page_names_nothing_outside_of_the_site(site):
    for path in (site / "index.html", site / "gallery.js", site / "gallery.css", site / "datasets/dtd.html"):
        assert not re.search(r"https?:|//cdn|@import", path.read_text()), path
    for path in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#]+)"', path.read_text()):
            assert link == "data:," or (path.parent / link).exists(), (path, link)


def test_a_gallery_is_not_written_over(site):
    with pytest.raises(InputError, match="is there already"):
        write_gallery(collect_gallery([]), site)


@pytest.mark.skipif(not CHROMIUM, reason="needs a Chromium")
def test_the_leaderboard_in_a_browser(site, tmp_path):
    rows = "[...document.querySelectorAll('#board tbody tr')]"
    with browser(tmp_path) as page:
        page.open((site / "index.html").as_uri())
        assert page.evaluate(f"{rows}.length") == 14
        choose = "const s = document.getElementById('{}'); s.value = '{}'; s.dispatchEvent(new Event('change'));"
        page.evaluate("{" + choose.format("block", "Many-shot linear (block)") + "}")
        assert page.evaluate(f"{rows}.length") == 100
        page.evaluate("{" + choose.format("dataset", "dataset-3") + "}")
        numbers = f"{rows}.map((row) => parseFloat(row.cells[1].textContent))"
        found = page.evaluate(numbers)
        assert len(found) == 100 and found == sorted(found, reverse=True)
        # By keyboard: the heading of a column is a button, and keeps the focus.
        page.evaluate("document.querySelectorAll('#board thead button')[1].focus()")
        for kind in ("keyDown", "keyUp"):
            page.command(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
            )
        assert page.evaluate(numbers) == sorted(found)
        assert page.evaluate("document.activeElement.dataset.key") == "dataset-3/Top-1 accuracy"
        assert page.evaluate("document.querySelectorAll('#board th')[1].getAttribute('aria-sort')") == "ascending"
        page.evaluate(
            "{const t = document.getElementById('text'); t.value = 'model-42'; t.dispatchEvent(new Event('input'));}"
        )
        assert page.evaluate(f"{rows}.length") == 1
        assert page.evaluate("location.hash.includes('text=model-42')")
        # A phone: nothing but the table scrolls sideways.
        for path in ("index.html", "models/large-model-7.html", "datasets/dtd.html"):
            page.open((site / path).as_uri())
            page.command("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=2, mobile=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        assert not page.named("Runtime.exceptionThrown")
        assert not [
            event
            for event in page.named("Network.requestWillBeSent")
            if "http" in event["params"]["request"]["url"][:4]
        ]
