"""Predictors of transfer in the report: tables of their rank correlations with scores, and figures of both."""

from collections.abc import Iterator

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from ssltransfer.analysis.correlation import INTERVAL_MODELS
from ssltransfer.analysis.predictors import (
    FEWEST_DATASETS,
    OTHERS,
    POOLED_KINDS,
    SOURCE,
    Predictor,
    best_predictor,
    half_width,
    judge,
    panel_predictors,
    predictor_table,
)
from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.report.drawing import BLUE, ORANGE, STYLE, FigureContext, label_axes, panel_grid, panel_title
from ssltransfer.report.labels import Labels, joined
from ssltransfer.report.marks import unsigned_note
from ssltransfer.report.scatter_figures import PanelScores, draw_panels, limit_y, mark_cut, mean_scores, regression
from ssltransfer.report.table import MISSING, Column, Table, number, records_table
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import AVERAGE, Task, is_published

SECTION = "predictors"
ROWS_PER_INCH = 5.5
PREDICTORS = "predictors-by-dataset"
"""Name of the table of all predictors, which figures read."""
DRAWN = ("h-score-shrunk", "log-me", "knn-loo")
"""Estimators that Fig. 1 is drawn against; the interactive scatter has all."""


def predictor_label(name: str, results: SuiteResults, labels: Labels) -> str:
    """Label of a predictor."""
    if name == SOURCE:
        return "Source accuracy"
    if name == OTHERS:
        return "Mean score on other datasets"
    protocol, _, subject = name.partition(":")
    if subject not in METRICS:
        kind = next(task.kind for task in results.tasks.tasks if task.protocol == protocol)
        return joined(KINDS[kind].short, results.suffixes[protocol], f"on {labels.dataset(subject)}")
    return joined(METRICS[subject].label, results_suffix(results, protocol))


def predictor_finding(results: SuiteResults, labels: Labels, table: pd.DataFrame | None) -> str:
    """Name the predictor that ranks the models best, with its uncertainty; or say what is missing for that.

    Parameters
    ----------
    results : SuiteResults
    labels : Labels
    table : pd.DataFrame or None
        See `predictors.predictor_table`; None where no predictor could be judged.
    """
    best = None if table is None else best_predictor(results, table)
    if best is None:
        text = f"unknown, because no score has a predictor of at least {INTERVAL_MODELS} models."
    else:
        chosen = f"the best of {best.judged} predictors" if best.judged > 1 else "the only predictor"
        unadjusted = "; not adjusted for the choice of the best" if best.judged > 1 else ""
        chance = f"{best.separable} of {best.judged} are" if best.separable > 1 else "One is"
        chance = chance if best.separable else "None is" if best.judged > 1 else "It is not"
        text = (
            f"on {labels.task(best.task)}, over {best.models} models, {chosen} is "
            f"{predictor_label(best.name, results, labels)}: Kendall's τ {number(best.kendall, 2)} (95 % interval "
            f"{number(best.low, 2)} to {number(best.high, 2)}{unadjusted}). {chance} separable from chance (5 %, Holm)."
        )
        if best.source:
            tau, low, high = (number(value, 2) for value in best.source)
            text += f" Source accuracy: {tau} ({low} to {high})."
    if results.estimates.empty and not is_published(results.cells).all():
        text += (
            " No transferability estimator was measured: a settings block such as `estimators` under `tasks` of the "
            "suite adds them."
        )
    return text[0].upper() + text[1:]


def predictor_tables(results: SuiteResults, labels: Labels) -> list[Table]:
    """Make a table of means over datasets and one of all datasets; an empty list without a predictor of any task."""
    found = predictor_table(results)
    if found["kendall"].isna().all():
        return []
    panels = {panel.name: labels.panel(panel) for panel in results.tasks.figure_panels}
    names = {name: predictor_label(name, results, labels) for name in found["predictor"].unique()}
    means = panel_predictors(found)
    about = (
        "Kendall's τ between a predictor and the scores of the models, 1 where it ranks them perfectly. The mean score "
        "on other datasets is of the counted tasks, each standardised over the models."
    )
    if len(results.estimates):
        about += " Estimators are those of the dataset of the task."
    if results.estimates["metric"].eq("log-me").any():
        about += (
            " LogME has no maximum where features fit a class without an error (the score files have a warning): its "
            "value is large there, and depends on the range of precisions that is searched."
        )
    about = joined(about, unsigned_note(results.estimates, labels))
    about += _what_models_tell(found.loc[found["kendall"].notna(), "n"].astype(int))
    columns = {
        "Datasets": means["datasets"].astype(int),
        "Models": [
            f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
            for low, high in zip(means["fewest_models"], means["most_models"], strict=True)
        ],
        "Mean τ": [number(value, 2) for value in means["kendall"]],
        "95 % interval": _ranges(means, "kendall"),
        "Without one dataset": [
            MISSING if pd.isna(low) else f"{low:.2f} to {high:.2f}"
            for low, high in zip(means["without_low"], means["without_high"], strict=True)
        ],
        "Regret": [number(value, 2) for value in means["regret"]],
        "τ less that of source accuracy": [number(value, 2) for value in means["kendall_difference"]],
        "95 % interval of the difference": _ranges(means, "kendall_difference"),
        "p (Holm)": [number(value, 3) for value in means["p_adjusted"]],
        "Regret less that of source accuracy": [number(value, 2) for value in means["regret_difference"]],
        "τ with the average": [number(value, 2) for value in means["average"]],
        "95 % interval of this τ": _ranges(means, "average"),
    }
    records = pd.DataFrame(columns)
    records = records.loc[:, records.ne(MISSING).any()]
    rows = {i: f"{panels[row.panel]} · {names[row.predictor]}" for i, row in enumerate(means.itertuples())}
    caption = (
        f"{about} Regret: distance of the score of the model that a predictor ranks first from the best score of those "
        "that it ranks, mean over datasets."
    )
    if means[["kendall_low", "kendall_difference_low"]].notna().any(axis=None):
        caption += (
            " Intervals of means over datasets are Student's t, for datasets like these and for these models; another "
            "sample of models would move all datasets together."
        )
    else:
        caption += f" Means over fewer than {FEWEST_DATASETS} datasets have no interval."
    if means["average"].notna().any():
        caption += (
            " The average is the mean score over the datasets of a panel (with the mean of an estimator over them); "
            "its interval is over models."
        )
    title = "Predictors of transfer"
    tables = [records_table("predictors", title, caption, records, row_labels=rows, data=means, section=SECTION)]
    judged = found[found["kendall"].notna()]
    wide = judged.pivot_table(index=["panel", "predictor"], columns="dataset", values="kendall", sort=False)
    wide = wide[sorted(wide, key=AVERAGE.__eq__)]  # last
    headings = {dataset: "Average" if dataset == AVERAGE else labels.dataset(dataset) for dataset in wide}
    cells = pd.DataFrame({headings[dataset]: [number(value, 2) for value in wide[dataset]] for dataset in wide})
    rows = {i: f"{panels[panel]} · {names[name]}" for i, (panel, name) in enumerate(wide.index)}
    caption = (
        "Kendall's τ between predictors and scores on each dataset. The csv has Pearson's and the weighted "
        "coefficient, the intervals over models (for a random sample of models), the model picked and its regret, and "
        "the differences from source accuracy over the models that have both (Zou's interval for Pearson's)."
    )
    title = "Predictors on each dataset"
    more = {"row_labels": rows, "data": found, "section": SECTION}
    return [*tables, records_table(PREDICTORS, title, caption, cells, **more)]


def _what_models_tell(models: pd.Series) -> str:
    """Say how far coefficients differ by chance, of the fewest and the most of these numbers of models."""
    text, fewest = "", models.min()
    enough = models[models >= INTERVAL_MODELS]
    if len(enough):
        widths = " and ".join(f"± {half_width(n):.2f} with {n} models" for n in sorted({enough.min(), enough.max()}))
        text += (
            f" The 95 % interval of a τ of 0 on one dataset is {widths}, so single coefficients differ by chance; "
            "means over datasets, and differences from source accuracy on the same datasets and models, are more "
            "certain."
        )
    if fewest < INTERVAL_MODELS:
        text += f" {fewest} models are too few for an interval, and often correlate by chance."
    return text


def estimator_tables(results: SuiteResults, labels: Labels, judged: bool) -> list[Table]:
    """Make a table of the transferability estimators of each dataset; `judged` if `predictor_tables` has any."""
    tables = []
    order = list(results.models["model"])
    whether = (
        "The table of predictors shows whether they predict transfer."
        if judged
        else "Whether they predict transfer is not shown, because too few models have both."
    )
    for (protocol, dataset), own in results.estimates.groupby(["protocol", "dataset"], sort=False):
        cells = own.pivot_table(index="model", columns="metric", values="value", sort=False)
        cells = cells.reindex([model for model in order if model in cells.index])
        metrics = [METRICS[metric] for metric in cells]
        columns = [Column(metric.label, decimals=metric.decimals, better=metric.better) for metric in metrics]
        lower = "; ".join(metric.label for metric in metrics if metric.better < 0)
        caption = (
            "Computed from the features of the training and validation images; accuracies in percent, LogME, "
            f"TransRate, GBC and uniformity in nats. Lower counts as better for {lower}. {whether} Best bold, second "
            "best underlined."
        )
        caption = joined(caption, unsigned_note(own, labels))
        where = {"section": SECTION, "protocol": protocol}
        title = f"Transferability estimators: {labels.dataset(dataset)} {results_suffix(results, protocol)}".strip()
        name = f"estimators-{protocol}-{dataset}"
        tables.append(Table(name, title, caption, cells, columns, labels.models, data=own, **where))
    return tables


def results_suffix(results: SuiteResults, protocol: str) -> str:
    """Protocol in brackets where the suite has estimators of several."""
    return f"[{protocol}]" if results.estimates["protocol"].nunique() > 1 else ""


def _ranges(frame: pd.DataFrame, name: str) -> list[str]:
    ends = zip(frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
    return [MISSING if pd.isna(low) else f"{low:.2f} to {high:.2f}" for low, high in ends]


def predictor_figure(context: FigureContext) -> Figure | None:
    """Kendall's τ of every predictor, one panel for each kind of task: datasets as dots, their mean with its interval.

    Of a single dataset the interval is that over models. None unless some dataset has estimators.
    """
    results = context.results
    if results.estimates.empty:
        return None
    found = context.predictor_table
    found = found[found["kendall"].notna() & found["n"].ge(INTERVAL_MODELS)]
    estimated = set(results.estimates["dataset"])
    found = found[found["dataset"].isin(estimated)]
    if found.empty:
        return None
    means = panel_predictors(found).set_index(["panel", "predictor"])
    names = list(dict.fromkeys(found["predictor"]))
    panels = [panel for panel in results.tasks.figure_panels if panel.name in set(found["panel"])]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 2.0 * len(panels), 0.9 + len(names) / ROWS_PER_INCH))
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, panel in zip(axes, panels, strict=True):
            own = found[found["panel"].eq(panel.name)]
            for height, name in enumerate(reversed(names)):
                rows = own[own["predictor"].eq(name)]
                if rows.empty:
                    continue
                mean = means.loc[(panel.name, name)]
                single = len(rows) == 1
                low, high = (
                    (rows[f"kendall_{end}"].iloc[0] if single else mean[f"kendall_{end}"]) for end in ("low", "high")
                )
                color = BLUE if name.partition(":")[2] in METRICS else ORANGE
                ax.plot([low, high], [height] * 2, color=color, linewidth=1.2, zorder=2)
                if not single:
                    ax.plot(rows["kendall"], [height] * len(rows), ".", color="#999999", markersize=4, zorder=3)
                ax.plot(mean["kendall"], height, "o", color=color, markersize=5, mec="white", mew=0.5, zorder=4)
            ax.axvline(0, color="#333333", linewidth=0.6, zorder=1)
            ax.set_xlim(-1.05, 1.05)
            ax.grid(axis="x", linewidth=0.3, color="#DDDDDD", zorder=0)
            ax.set_title(context.labels.panel(panel))
        labels = [predictor_label(name, results, context.labels) for name in reversed(names)]
        axes[0].set_yticks(range(len(names)), labels)
        axes[0].set_ylim(-0.6, len(names) - 0.4)
        label_axes(figure, x="Kendall's τ between predictor and score")
    return figure


def predictor_figure_note(context: FigureContext) -> str:
    """Sentences for the caption of `predictor_figure` that say what is drawn; empty without estimators."""
    results = context.results
    if results.estimates.empty:
        return ""
    found, estimated = context.predictor_table, set(results.estimates["dataset"])
    found = found[found["kendall"].notna() & found["n"].ge(INTERVAL_MODELS) & found["dataset"].isin(estimated)]
    counts = found.groupby(["panel", "predictor"])["dataset"].nunique()
    names = ", ".join(map(context.labels.dataset, dict.fromkeys(results.estimates["dataset"])))
    notes = [f"Datasets with estimators: {names}; the table of predictors averages over all datasets."]
    if counts.gt(1).any():
        notes.append("Grey: single datasets; large: their mean, with its interval (Student's t over datasets).")
    if counts.eq(1).any():
        notes.append("Of a single dataset, the interval is Fieller's over models.")
    notes.append("Blue: estimators, from features of the dataset; orange: predictors that need none.")
    if found["kind"].isin(POOLED_KINDS).any():
        kinds = " and ".join(KINDS[kind].label for kind in POOLED_KINDS)
        notes.append(f"{kinds}: without estimators, which have seen the labels of the images of its episodes.")
    return " ".join(notes)


def transfer_figures(context: FigureContext) -> Iterator[tuple[str, Figure, str, list[Task]]]:
    """Fig. 1 against other predictors than source accuracy; nothing without estimators.

    Yields file name, figure, caption and the tasks shown.

    Panels average over those of their tasks whose dataset has the estimator.
    """
    results = context.results
    if results.estimates.empty:
        return
    found = context.predictor_table
    names = [name for name in found["predictor"].unique() if name != SOURCE]
    for name in names:
        subject = name.partition(":")[2]
        if subject in METRICS and subject not in DRAWN:
            continue
        panels, metrics = [], set()
        for panel in results.tasks.figure_panels:
            rows = found[found["panel"].eq(panel.name) & found["predictor"].eq(name)]
            tasks = [task for task in panel.tasks if task.dataset in set(rows["dataset"])]
            predictor = context.predictors(*tasks).get(name) if tasks else None
            if predictor:
                scores = mean_scores(results, panel, tasks)
                if text := _tau(scores, predictor):
                    panels.append((scores, predictor.values, text))
                    metrics.add(predictor.metric)
        if panels:
            metric = metrics.pop() if len(metrics) == 1 else ""
            label = predictor_label(name, results, context.labels)
            shown = [task for scores, *_ in panels for task in scores.tasks]
            figure = draw_panels(context, panels, label, metric)
            yield f"predictors-transfer-{name.replace(':', '-')}", figure, f"Predictor: {label}.", shown


def _tau(scores: PanelScores, predictor: Predictor) -> str:
    """Kendall's tau with the mean scores of a panel; empty where it is not defined."""
    better = METRICS[scores.tasks[0].metric].better
    found = judge(predictor.values * (predictor.better or 1), scores.mean * better, scores.mean, better, 0)
    if "kendall" in found and found["n"] < INTERVAL_MODELS:
        return f"n = {found['n']}, too few models for τ"
    return f"τ = {number(found['kendall'], 2)}".replace("-", "−") if "kendall" in found else ""


def predictor_scatters(context: FigureContext) -> Iterator[tuple[str, Figure, str, list[Task]]]:
    """Scatter plots of scores on each dataset with estimators against every predictor, as `transfer_figures` does."""
    results = context.results
    for dataset in dict.fromkeys(results.estimates["dataset"]):
        tasks = [task for task in results.tasks.counted if task.dataset == dataset]
        if tasks:
            task = next((task for task in tasks if task.kind == "linear"), tasks[0])
            if (figure := _scatter(context, task)) is not None:
                yield f"predictors-scatter-{dataset}", figure, f"Score: {context.labels.task(task)}.", [task]


def _scatter(context: FigureContext, task: Task) -> Figure | None:
    results = context.results
    y, (lows, highs) = results.tasks.values[task], results.tasks.value_ends
    drawn: list[tuple[Predictor, pd.Series]] = []
    for predictor in context.predictors(task).values():
        x = predictor.values
        if (x.notna() & y.notna()).sum() > 2:
            drawn.append((predictor, x))
    if not drawn:
        return None
    shown = [m for m in context.models if pd.notna(y[m]) and any(pd.notna(x[m]) for _, x in drawn)]
    judged = context.predictor_table
    judged = judged[(judged[list(Task._fields)] == list(task)).all(axis=1)].set_index("predictor")
    with mpl.rc_context(STYLE):
        figure, axes = panel_grid(len(drawn), 1.65, len(shown))
        for ax, (predictor, x) in zip(axes, drawn, strict=True):
            regression(ax, x, y)
            context.whiskers(ax, x, lows[task], highs[task])
            context.points(ax, x, y, 4.5)
            kept = x.notna()
            limit_y(ax, y[kept], lows.loc[kept, task], highs.loc[kept, task])
            mark_cut(ax, x, lows[task], highs[task], context.shown)
            if predictor.metric:
                context.score_axis(ax.xaxis, x[y.notna()], predictor.metric)
            context.score_axis(ax.yaxis, y, task.metric)
            row = judged.loc[predictor.name]
            tau = f"τ = {number(row['kendall'], 2)}".replace("-", "−") if pd.notna(row["kendall"]) else row["note"]
            tau = tau if row["n"] >= INTERVAL_MODELS else f"n = {row['n']}, too few models for τ"
            better = " ↓" if predictor.better < 0 else ""
            ax.set_title(panel_title(f"{predictor_label(predictor.name, results, context.labels)}{better}", tau))
        label_axes(figure, y=context.labels.task(task))
        context.legend(figure, shown)
    return figure
