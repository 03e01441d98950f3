"""What self-distillation gains a vision transformer: `uv run python benchmarks/vit_gain.py`.

The transformer of the demo suite is trained with three seeds by the code of the pipeline. Its features, and those of the
same three networks before training, are evaluated by the suite's linear protocol. Prints and writes
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
    columns = {task: lambda found, task=task: found[task] for task in gain.TASKS} | {"mean logit": gain.mean_logit}
    lines = ["| Network | " + " | ".join([*(f"{t}, {m}" for t, m in gain.TASKS.items()), "mean logit"]) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    found = {
        name: {c: gain.summary([of(run) for run in runs]) for c, of in columns.items()} for name, runs in cells.items()
    }
    for name, row in found.items():
        texts = [
            f"{mean:.3f} ± {error:.3f}" if c == "mean logit" else f"{mean:.1f} ± {error:.1f}"
            for c, (mean, error) in row.items()
        ]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    before, after = found.values()
    ratios = [(after[c][0] - before[c][0]) / np.hypot(after[c][1], before[c][1]) for c in columns]
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
    lines = [
        "# What self-distillation gains a vision transformer",
        "",
        f"Test scores in percent, mean and standard error over seeds {gain.SEEDS} of initialisation and training; network",
        f"`{MODEL['arch']}` at {gain.SETTINGS['transform']},",
        f"readout {MODEL['pool'] or 'of the network'}, linear protocol of the demo suite. `random` is the same network before training.",
        "gain / SE is the difference of the means divided by its standard error.",
        "Made by `benchmarks/vit_gain.py`.",
        "",
        *table(cells),
        "",
        f"One training takes {np.median(seconds):.0f} s of processor time on one thread, without start-up (median of three).",
        "",
        f"Machine: {gain.processor()}, {os.cpu_count()} cores, no GPU used; Python {platform.python_version()},",
        f"torch {torch.__version__}, numpy {np.__version__}.",
    ]
    (gain.ROOT / "benchmarks/vit_gain.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
