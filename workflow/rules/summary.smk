# Needs: the score files of the suite.
# Makes: results/{suite}/tables (scores.csv and everything made from it), figures and report.html; from the published
# scores alone (resources/published) the same for the suites published-v1 and published-v2.
# Seconds of work each, so they run where Snakemake runs (localrule) and wait in no queue.
TITLES = {
    SUITE.name: SUITE.config.get("title", SUITE.name),
    "published-v1": "The paper's published numbers (first version)",
    "published-v2": "The paper's published numbers (CVPR 2021)",
}
# Those that the suite's scores and models name; labels of others change nothing.
SUITE_DATASETS = sorted(
    {name for names in SUITE.config["tasks"].values() for name in [*names, *map(SUITE.image_dataset, names)]}
    | {SUITE.recipe(model)["dataset"] for model in SUITE.models if "dataset" in (SUITE.recipe(model) or {})}
)


rule derive_outcomes:
    """Derive what each test image contributes to scores that were measured without it; nothing is measured again."""
    input:
        missing=missing_outcomes,
        scores=scores_without_outcomes,
    output:
        derived="results/outcomes/{suite}.json",
    log:
        "logs/derive_outcomes/{suite}.log",
    wildcard_constraints:
        suite=SUITE.name,
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(60),
    script:
        "../../scripts/derive_outcomes.py"


rule make_tables:
    """Collect the scores of the suite and make its tables."""
    input:
        scores=suite_scores,
        outcomes=suite_outcomes,
        differing=unrecorded_differences,
        missing=missing_list,
        derived=derived_outcomes,
        adopted=adopted_scores,
        similarity=suite_similarity,
    output:
        # Folders, because the tables and figures of a suite follow from its scores, and none may be left over.
        tables=report(
            directory("results/{suite}/tables"),
            patterns=["{name}.csv"],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{name}"},
        ),
    log:
        "logs/make_tables/{suite}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        models=[
            {key: row[key] for key in ("model", "label", "family", "source_accuracy")} for row in SUITE.models.values()
        ],
        datasets={name: SUITE.datasets[name]["label"] for name in SUITE_DATASETS},
        relabelled={name: SUITE.image_dataset(name) for name in SUITE_DATASETS if SUITE.image_dataset(name) != name},
        pretrained_on={
            model: SUITE.recipe(model)["dataset"] for model in SUITE.models if "dataset" in (SUITE.recipe(model) or {})
        },
        conventions=SUITE.config["conventions"],
        published=SUITE.config["published"],
        version=version("summary"),
    script:
        "../../scripts/make_tables.py"


use rule make_tables as make_published_tables with:
    input:
        scores=[],
        outcomes=[],
        missing=[],
    wildcard_constraints:
        suite="published-v[12]",
    params:
        models=[],
        datasets={},
        relabelled={},
        pretrained_on={},
        conventions=published_version,
        published=published_version,
        version=version("summary"),


rule plot_figures:
    """Draw the figures of the suite."""
    input:
        tables="results/{suite}/tables",
        pictures=suite_pictures,
        curves=suite_curves,
    output:
        figures=report(
            directory("results/{suite}/figures"),
            patterns=["{name}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
    log:
        "logs/plot_figures/{suite}.log",
    wildcard_constraints:
        suite=any_of(TITLES),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        kinds=protocol_kinds,
        version=version("figures"),
    script:
        "../../scripts/plot_figures.py"


rule write_provenance:
    """Write down versions, machines, inputs and wall time of the suite."""
    input:
        tables="results/{suite}/tables",
        measured=provenance_files,
    output:
        provenance="results/{suite}/provenance.json",
    log:
        "logs/write_provenance/{suite}.log",
    wildcard_constraints:
        suite=any_of(TITLES),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    script:
        "../../scripts/write_provenance.py"


rule write_report:
    """Write the self-contained report of the suite."""
    input:
        tables="results/{suite}/tables",
        provenance="results/{suite}/provenance.json",
        figures="results/{suite}/figures",
    output:
        report=report(
            "results/{suite}/report.html",
            caption="../report/suite.rst",
            category="Report",
        ),
    log:
        "logs/write_report/{suite}.log",
    wildcard_constraints:
        suite=any_of(TITLES),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        version=version("report"),
        title=lambda w: TITLES[w.suite],
    script:
        "../../scripts/write_report.py"


rule published:
    """Make every table and figure of the paper from its published scores."""
    input:
        expand("results/{suite}/report.html", suite=["published-v1", "published-v2"]),
    conda:
        "../../envs/analysis.yaml"
