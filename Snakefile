"""How well do pretrained visual representations transfer? See README.md and config/README.md."""

import atexit
import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")
sys.path.append(workflow.current_basedir.join("scripts").get_path_or_uri(secret_free=True))

if Path(sys.executable).exists():
    # Snakemake writes the interpreter of a script into the shell's command as it is: an environment below a folder
    # with a space in its name would not be found.
    sys.executable = shlex.quote(sys.executable)

if not workflow.overwrite_configfiles and not config:

    # --configfile merges over this one, so the default suite is loaded only when no other is asked for.
    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/checkpoints.smk"
include: "workflow/rules/pretraining.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/linear.smk"
include: "workflow/rules/calibration.smk"
include: "workflow/rules/fewshot.smk"
include: "workflow/rules/inversion.smk"
include: "workflow/rules/attention.smk"
include: "workflow/rules/normals.smk"
include: "workflow/rules/detection.smk"
include: "workflow/rules/summary.smk"


rule all:
    default_target: True
    input:
        SUITE_REPORT,
    conda:
        "envs/analysis.yaml"


onsuccess:
    asked_for = {str(path) for job in workflow.dag.jobs for path in job.output if Path(path).name == "report.html"}
    if asked_for:
        # Snakemake still prints after this; the place of the report is to be the last line.
        atexit.register(print, f"Report: {', '.join(sorted(asked_for))}", file=sys.stderr)


onerror:
    if any(job.rule.name == "list_checkpoints" for job in workflow.dag.jobs):
        # With --keep-going: the list of what could be had; made anew when the rest is there.
        list_what_is_there()
