# Needs: the score files of the suite.
# Makes: results/{suite}/tables (scores.csv and everything made from it), figures and report.html.


rule make_tables:
    """Collect the scores of the suite and make its tables."""
    input:
        scores=suite_scores,
    output:
        # Folders, because the tables and figures of a suite follow from its scores, and none may be left over.
        report(
            directory("results/{suite}/tables"),
            patterns=["{name}.csv"],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{name}"},
        ),
    log:
        "logs/make_tables/{suite}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        models=[
            {key: row[key] for key in ("model", "label", "family", "source_accuracy")}
            for row in SUITE.models.values()
        ],
        datasets={name: row["label"] for name, row in SUITE.datasets.items()},
        pretrained_on={
            model: SUITE.recipe(model)["dataset"]
            for model in SUITE.models
            if "dataset" in (SUITE.recipe(model) or {})
        },
        conventions=SUITE.config.get("conventions", "v2"),
        version=version("summary"),
    script:
        "../../scripts/make_tables.py"


rule plot_figures:
    """Draw the figures of the suite."""
    input:
        tables="results/{suite}/tables",
    output:
        report(
            directory("results/{suite}/figures"),
            patterns=["{name}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
    log:
        "logs/plot_figures/{suite}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        version=version("figures"),
    script:
        "../../scripts/plot_figures.py"


rule write_report:
    """Write the self-contained report of the suite."""
    input:
        tables="results/{suite}/tables",
        figures="results/{suite}/figures",
    output:
        report(
            "results/{suite}/report.html",
            caption="../report/suite.rst",
            category="Report",
        ),
    log:
        "logs/write_report/{suite}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        version=version("report"),
        title=SUITE.config.get("title", SUITE.name),
        provenance={
            "suite": SUITE.name,
            "conventions": SUITE.config.get("conventions", "v2"),
        },
    script:
        "../../scripts/write_report.py"
