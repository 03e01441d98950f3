"""What self-distillation gains a vision transformer: `uv run python benchmarks/vit_gain.py`.

The transformer of the demo suite is trained with three seeds by the code of the pipeline. Its features, and those of
the same networks before training, are evaluated by the suite's linear protocol. Prints and writes
`benchmarks/vit_gain.md` (five minutes).
"""

import os

import pretraining_gain as gain  # first: it chooses one thread and no GPU

# isort: split
import platform
from dataclasses import replace

import numpy as np
import torch

MODEL = gain.MODELS["tiny-dino"]
RECIPE_NAME = MODEL["source"].removeprefix("pretrain:")
RECIPE = gain.read_recipe(RECIPE_NAME, gain.WRITTEN[RECIPE_NAME])


def table(cells):
    """Markdown rows; `cells` is {name: [scores, one dict per seed]}."""
    columns = {f"{task}, {metric}": [task, 1] for task, metric in gain.TASKS.items()} | {"mean logit": [None, 3]}
    lines = [f"| Network | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    measured = {}
    for name, runs in cells.items():
        measured[name] = [
            gain.summary([gain.mean_logit(run) if task is None else run[task] for run in runs])
            for task, _ in columns.values()
        ]
        digits = [digits for _, digits in columns.values()]
        texts = [f"{mean:.{d}f} ± {error:.{d}f}" for (mean, error), d in zip(measured[name], digits, strict=True)]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    before, after = measured.values()
    ratios = [(b - a) / np.hypot(d, e) for (a, d), (b, e) in zip(before, after, strict=True)]
    lines.append(f"| gain / SE | {' | '.join(f'{ratio:+.1f}' for ratio in ratios)} |")
    return lines


def main():
    torch.set_num_threads(1)
    data = gain.prepare()
    cells = {"random": [], RECIPE.name: []}
    seconds = []
    for seed in gain.SEEDS:
        for name, recipe in (("random", replace(RECIPE, method="none")), (RECIPE.name, RECIPE)):
            state, used = gain.train(recipe, seed, MODEL["arch"], data)
            cells[name].append(gain.scores(state, data, MODEL["arch"], MODEL["pool"]))
            print(name, seed, f"{used:.1f} s", {k: round(v, 1) for k, v in cells[name][-1].items()}, flush=True)
        seconds.append(used)
    views = 2 * RECIPE.epochs * np.count_nonzero(data[RECIPE.dataset][1] == "train")
    median = np.median(seconds)
    lines = [
        "# What self-distillation gains a vision transformer",
        "",
        f"Test scores in percent, mean and standard error over seeds {gain.SEEDS} of initialisation and training,",
        f"by the linear protocol of the demo suite. Network `{MODEL['arch']}`",
        f"at {gain.SETTINGS['transform']}, readout `{MODEL['pool']}`; `random` is the same network before training.",
        "gain / SE is the difference of the means divided by its standard error.",
        "Made by `benchmarks/vit_gain.py`.",
        "",
        *table(cells),
        "",
        f"One training takes {median:.0f} s of processor time on one thread without start-up (median),",
        f"{views / median:,.0f} views/s.",
        "",
        f"Machine: {gain.processor()}, {os.cpu_count()} cores, no GPU used; Python {platform.python_version()},",
        f"torch {torch.__version__}, numpy {np.__version__}.",
    ]
    (gain.ROOT / "benchmarks/vit_gain.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
