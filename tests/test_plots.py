import numpy as np
import pandas as pd
import pytest
from synthetic_suite import MODELS, suite

from ssltransfer.correlation import correlations
from ssltransfer.plots import model_styles, save_figure, suite_figures


def figures(summary):
    found = correlations(summary.matrix, summary.source, summary.conventions, summary.leave_out)
    return dict(suite_figures(summary, found))


def test_every_figure_of_a_small_suite_is_drawn_and_repeats_byte_for_byte(tmp_path):
    for folder in ("a", "b"):
        for name, figure in figures(suite()).items():
            save_figure(figure, tmp_path / folder, name)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert [name for name in names if name.endswith("svg")] == [
        "correlations.svg", "domain-vs-transfer.svg", "mean-ranks.svg", "pairs.svg", "radar.svg",
        "scatter-fewshot.svg", "scatter-linear.svg", "transfer.svg",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_model_keeps_its_style_when_rows_are_added():
    models = suite().models
    extra = models.iloc[[2]].assign(model="new")
    before, after = model_styles(models), model_styles(pd.concat([models, extra]))
    assert all(after[model] == style for model, style in before.items())


def test_styles_are_told_apart():
    models = suite().models
    many = models.iloc[[2] * 14].assign(model=[f"m{i}" for i in range(14)], family="contrastive")
    styles = [(s["marker"], s["color"]) for s in model_styles(many).values()]
    assert len(set(styles)) == 14


@pytest.mark.parametrize("count", [1, 2])
def test_few_models_are_drawn_without_a_line(count):
    drawn = figures(suite(MODELS[:count]))
    assert "transfer" in drawn
    assert "correlations" not in drawn
    assert not any(line.get_linestyle() == "-" for line in drawn["transfer"].axes[0].lines)


def test_without_source_accuracy_there_is_nothing_to_scatter():
    models = [row | {"source_accuracy": ""} for row in MODELS]
    assert set(figures(suite(models))) == {"domain-vs-transfer", "mean-ranks", "pairs"}


def test_equal_scores_are_drawn():
    summary = suite()
    summary.scores["value"] = np.where(summary.scores["dataset"] == "digits", 50.0, summary.scores["value"])
    summary.scores[["low", "high"]] = np.nan
    assert "transfer" in figures(summary)
