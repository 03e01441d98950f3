"""Grids of pictures and loss curves, drawn from the files of jobs."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from synthetic_suite import suite

from ssltransfer.errors import InputError
from ssltransfer.protocols.detection.detection_file import load_detections
from ssltransfer.report.drawing import BLACK, FigureContext, save_figure
from ssltransfer.report.grid_figure import grid_figure
from ssltransfer.report.loss_figure import loss_figure
from ssltransfer.report.picture_figures import picture_grid
from ssltransfer.results.picture_file import Pictures, load_pictures, save_pictures


def flat(value, count=4, size=(12, 16)):
    return np.full((count, *size, 3), value, np.uint8)


def pictures(value=100, columns=4, panels=("Prediction", "Error")):
    return Pictures(
        [f"image {i}" for i in range(columns)],
        {"Image": flat(10, columns), "Truth": flat(50, columns)},
        {title: flat(value + i, columns) for i, title in enumerate(panels)},
        "Small.",
    )


def test_pictures_are_read_as_they_were_written(tmp_path):
    expected = pictures()
    save_pictures(tmp_path / "a/b.npz", expected)
    found = load_pictures(tmp_path / "a/b.npz")
    assert (found.columns, found.caption) == (expected.columns, "Small.")
    for one, other in ((found.reference, expected.reference), (found.panels, expected.panels)):
        assert list(one) == list(other) and all(np.array_equal(one[title], other[title]) for title in other)


def test_a_legend_is_kept_and_drawn_below_the_pictures(tmp_path):
    legend = {"cone, a long name": (0, 128, 0), "ring": (255, 0, 64)}
    save_pictures(tmp_path / "a.npz", replace(pictures(), legend=legend))
    found = load_pictures(tmp_path / "a.npz")
    save_pictures(tmp_path / "bare.npz", pictures())
    assert found.legend == legend and load_pictures(tmp_path / "bare.npz").legend == {}
    context = FigureContext(suite())
    figure, bare = (picture_grid(context, {"random": p}) for p in (found, pictures()))
    (drawn,) = figure.legends
    assert [text.get_text() for text in drawn.get_texts()] == list(legend) and not bare.legends
    colours = [tuple(round(255 * value) for value in patch.get_facecolor()[:3]) for patch in drawn.get_patches()]
    assert colours == list(legend.values())
    assert figure.get_figheight() > bare.get_figheight()


@pytest.mark.parametrize("wrong", [flat(0, 3), flat(0).astype(float), flat(0)[..., 0]])
def test_panels_of_another_shape_are_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match=r"Image: found .* expected uint8 \(4, height, width, 3\)"):
        Pictures(list("abcd"), {"Image": wrong}, {})
    assert not list(tmp_path.iterdir())


def test_a_file_of_something_else_is_one_line(tmp_path):
    np.savez(tmp_path / "a.npz", scores=np.zeros(3))
    with pytest.raises(InputError, match=r"a\.npz holds no pictures"):
        load_pictures(tmp_path / "a.npz")


@pytest.mark.parametrize("load", [load_pictures, load_detections])
@pytest.mark.parametrize("size", [0, 100, 900])
def test_a_damaged_file_is_one_line(load, size, tmp_path):
    first = pictures()
    save_pictures(tmp_path / "a.npz", first)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:size])
    with pytest.raises(InputError, match=r"a\.npz holds no (pictures|detections)"):
        load(tmp_path / "a.npz")


def test_names_are_no_formulas_and_no_control_characters(tmp_path):
    names = [r"$\frac{$", "$a$", "two\nlines\x01"]
    shown = Pictures(names, {"Image": flat(0, 3)}, {"A $": flat(0, 3), "B $": flat(0, 3)})
    figure = picture_grid(FigureContext(suite()), {"simclr": shown})
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == [r"$\frac{$", "$a$", "two?lines?"]
    save_figure(figure, tmp_path, "pictures")
    ET.parse(tmp_path / "pictures.svg")


def test_a_grid_has_the_shared_rows_first_and_then_each_model_in_table_order():
    figure = picture_grid(FigureContext(suite()), {"simclr": pictures(150), "random": pictures(200)})
    (ax,) = figure.axes
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == ["Image", "Truth", "Random\nPrediction", "Random\nError", "SimCLR\nPrediction", "SimCLR\nError"]
    assert [text.get_text() for text in ax.get_xticklabels()] == [f"image {i}" for i in range(4)]
    sheet = ax.images[0].get_array()
    values = [int(sheet[round(y), round(x), 0]) for y in ax.get_yticks() for x in ax.get_xticks()[:1]]
    assert values == [10, 50, 200, 201, 150, 151]


def test_a_single_panel_needs_no_title_of_its_own():
    figure = picture_grid(FigureContext(suite()), {"swav": pictures(panels=("Reconstruction",))})
    assert figure.axes[0].get_yticklabels()[2].get_text() == "SwAV_2"


def test_fine_pictures_are_reduced_to_the_page():
    wide = Pictures([str(i) for i in range(15)], {"Image": flat(0, 15, (224, 224))}, {})
    assert picture_grid(FigureContext(suite()), {"random": wide}).axes[0].images[0].get_array().shape[1] < 1800


def test_losses_are_drawn_at_their_steps(tmp_path):
    curves = {"a, b": {"random": {"interval": 5, "losses": [2.0, 1.0]}, "swav": {"interval": 5, "losses": []}}}
    figure = loss_figure(FigureContext(suite()), curves)
    random, swav = figure.axes[0].lines
    assert list(random.get_xdata()) == [5, 10] and list(random.get_ydata()) == [2, 1] and not len(swav.get_xdata())
    save_figure(figure, tmp_path, "losses")


def test_members_of_a_grid_are_drawn_and_the_selected_one_stands_out_in_its_own_colour(tmp_path):
    def member(rate, validation, augmentation="crop-flip", losses=(2.0, 0.1)):
        return {
            "augmentation": augmentation,
            "learning_rate": rate,
            "weight_decay": 0,
            "layer_decay": 1,
            "validation": validation,
            "losses": list(losses),
        }

    curve = [member(0.1, None, losses=()), member(0.01, 40.0), member(0.01, 30.0, "centre"), member(0.001, 20.0)]
    score = {"curve": curve, "selected": member(0.01, 40.0), "details": {"refit": {"interval": 3}}}
    figure = grid_figure(FigureContext(suite()), {"simclr": score, "random": score})
    losses, metrics = figure.axes[0], figure.axes[2]
    assert [ax.get_title() for ax in figure.axes[:2]] == ["Random", "SimCLR"]
    assert [list(line.get_xdata()) for line in losses.lines] == [[], [3, 6], [3, 6], [3, 6]]
    *points, ring = sorted(metrics.lines, key=lambda line: line.get_markeredgecolor() == BLACK)
    assert [float(point.get_ydata()[0]) for point in points] == [40, 30, 20]  # none of the diverged member
    assert [float(point.get_xdata()[0]) for point in points] == [1, 1, 0]
    assert [text.get_text() for text in metrics.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert [line.get_linewidth() > 1 for line in losses.lines] == [False, True, False, False]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (1, 40) and points[0].get_color() == points[1].get_color()
    legend_colours = {line.get_label(): line.get_color() for line in figure.legends[0].get_lines()}
    assert losses.lines[1].get_color() == legend_colours["rate 0.01"]
    assert [line.get_linestyle() for line in losses.lines] == ["-", "-", ":", "-"] and losses.get_yscale() == "log"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["rate 0.001", "rate 0.01", "rate 0.1", "selected"]
    save_figure(figure, tmp_path, "grid")


def test_many_models_take_several_rows_of_grids():
    context = FigureContext(suite())
    point = {"augmentation": "centre", "learning_rate": 0.1, "weight_decay": 0, "layer_decay": 1}
    curve = [point | {"validation": 50.0, "losses": [1.0]}]
    score = {"curve": curve, "selected": point, "details": {"refit": {"interval": 1}}}
    models = context.models[:5]
    figure = grid_figure(context, dict.fromkeys(models, score))
    titles = [ax.get_title() for ax in figure.axes if ax.get_visible() and ax.get_title()]
    assert titles == [context.labels.model(model) for model in models] and len(figure.axes) == 16


def test_grids_are_saved_as_svg_and_png(tmp_path):
    save_figure(picture_grid(FigureContext(suite()), {"random": pictures()}), tmp_path, "grid")
    assert {path.name for path in tmp_path.iterdir()} == {"grid.svg", "grid.png"}
