"""How each claim of the paper is checked: functions of the evidence, and the statements they belong to."""

from collections.abc import Callable
from itertools import pairwise

from ssltransfer.analysis.correlation import pearson
from ssltransfer.analysis.evidence import SUPERVISED, Evidence
from ssltransfer.analysis.scale import to_analysis_scale
from ssltransfer.analysis.tasks import CD_FSL, tasks_of
from ssltransfer.results.metric_info import METRICS

#: The recomputed numbers as text, and whether the claim holds (None where that cannot be checked).
Answer = tuple[str, bool | None]


def _close(value: float, printed: float) -> Answer:
    """A correlation and whether it agrees with the printed one to the last digit."""
    return f"{value:.3f}", abs(value - printed) <= 0.0105


def _margins(evidence: Evidence, kind: str, setting: str = "", sign: int = 1) -> tuple[float, float]:
    """Lead of the best self-supervised model over the supervised one on Aircraft and Cars."""
    leads = []
    for dataset in ("aircraft", "cars"):
        values = evidence.task(kind, dataset, setting=setting)
        leads.append(sign * float(values.drop(SUPERVISED).max() - values[SUPERVISED]))
    return leads[0], leads[1]


def _ssl_models(e: Evidence) -> Answer:
    count = len(e.matrix) - 1
    return f"{count}", count == 13


def _task_count(e: Evidence) -> Answer:
    count, printed = e.counted().shape[1], {"v1": 25, "v2": 40}[e.version]
    return f"{count}", count == printed


def _supervised_wins_one(e: Evidence) -> Answer:
    wins = e.supervised_wins(e.counted())
    return f"{len(wins)} of {e.counted().shape[1]}: {', '.join(f'{t.kind} {t.dataset}' for t in wins)}", len(wins) == 1


def _most_tasks(e: Evidence) -> Answer:
    wins, total = len(e.supervised_wins(e.counted())), e.counted().shape[1]
    return f"best self-supervised on {total - wins}, supervised on {wins} of {total}", total - wins > total / 2


def _linear_all_but_one(e: Evidence) -> Answer:
    wins = e.supervised_wins(e.scores("linear"))
    return f"supervised wins {len(wins)} of {e.scores('linear').shape[1]}", len(wins) == 1


def _linear_margin(e: Evidence) -> Answer:
    leads = _margins(e, "linear")
    return f"Aircraft {leads[0]:.2f}; Cars {leads[1]:.2f}", min(leads) > 10


def _fewshot_supervised_margin(e: Evidence) -> Answer:
    leads = _margins(e, "fewshot", "20-shot", -1)
    return f"Aircraft {leads[0]:.2f}; Cars {leads[1]:.2f}", min(leads) >= 5


def _normals_margin(e: Evidence) -> Answer:
    found = e.scores("normals")
    leads = found.loc["simclr-v2"] - found.loc[SUPERVISED]
    text = "; ".join(f"{METRICS[t.metric].label} {leads[t]:+.2f}" for t in tasks_of(leads.index))
    return text, bool(leads.abs().between(3.5, 10.5).all())


def _normals_sweep(e: Evidence) -> Answer:
    found = e.scores("normals")
    firsts = [e.ranking(found[t], METRICS[t.metric].better)[0] for t in tasks_of(found)]
    return f"SimCLR-v2 first in {firsts.count('SimCLR-v2')} of {len(firsts)}", set(firsts) == {"SimCLR-v2"}


def _finetune_supervised_best(e: Evidence) -> Answer:
    wins = [t.dataset for t in e.supervised_wins(e.scores("finetune"))]
    return f"{len(wins)}: {', '.join(wins)}", len(wins) == 3 and "aircraft" in wins


def _finetune_outperform(e: Evidence) -> Answer:
    ranked = e.ranking(e.scores("finetune").mean(axis=1))
    better = ranked[: ranked.index("Supervised")]
    return ", ".join(better), set(better) == {"DeepCluster-v2", "SwAV", "SimCLR-v2"}


def _fewshot_not_supervised(e: Evidence) -> Answer:
    found = e.scores("fewshot", "20-shot")
    tasks = [task for task in tasks_of(found) if task.dataset not in CD_FSL]
    wins = e.supervised_wins(found[tasks])
    lost = sorted({task.dataset for task in tasks} - {task.dataset for task in wins})
    return ", ".join(lost), lost == ["dtd", "flowers"]


def _ap50_most_correlated(e: Evidence) -> Answer:
    rs = {
        (k, m): e.r(e.task(f"detection-{k}", metric=m), m)
        for k in ("frozen", "finetune")
        for m in ("ap", "ap50", "ap75")
    }
    text = "; ".join(f"{k} {METRICS[m].label} {r:.3f}" for (k, m), r in rs.items())
    first = all(rs[k, "ap50"] == max(rs[k, m] for m in ("ap", "ap50", "ap75")) for k in ("frozen", "finetune"))
    return text, first and rs["frozen", "ap50"] > rs["finetune", "ap50"]


def _segmentation_weak(e: Evidence) -> Answer:
    iou = e.task("segmentation", metric="mean-iou")
    r, rho = e.r(iou, "mean-iou"), e.rho(iou)
    return f"mean IoU r {r:.3f}, ρ {rho:.3f}", abs(r) < 0.3 and abs(rho) < 0.1


def _isic_absent(e: Evidence) -> Answer:
    rs = [e.r(e.task("fewshot", "isic", setting=f"{k}-shot"), "accuracy") for k in (5, 20, 50)]
    return f"5/20/50-shot: {'; '.join(f'{r:.2f}' for r in rs)}", max(map(abs, rs)) < 0.2


def _ece_source(printed: float) -> Callable[[Evidence], Answer]:
    """ECE of linear classifiers against source accuracy; v1's own ECE values were never printed."""
    return lambda e: (f"{e.r(e.task('calibration', setting='linear'), 'ece'):.3f} (with v2's ECE; v1: {printed})", None)


def _ece_transfer(e: Evidence) -> Answer:
    ece = to_analysis_scale(e.task("calibration", setting="linear"), "ece")
    return f"{float(pearson(ece, e.mean_logit('linear'))):.3f} (with v2's ECE)", None


def _lpips_vgg_v1(e: Evidence) -> Answer:
    values = e.task("inversion", metric="lpips-vgg")
    alone = e.r(values, "lpips-vgg", without=(SUPERVISED,))
    text = f"{alone:.3f} on the self-supervised models alone, {e.r(values, 'lpips-vgg'):.3f} on all"
    return text, abs(alone + 0.61) <= 0.0105


def _property_source(kind: str, metric: str, printed: float, raw_x: bool) -> Callable[[Evidence], Answer]:
    """Correlation of a property with source accuracy, x raw in v1's prose and as logit in v2's."""
    return lambda e: _close(e.r(e.task(kind, metric=metric), metric, raw_x, raw_x), printed)


def _diffusion_transfer(e: Evidence) -> Answer:
    diffusion = e.task("attention")
    if e.version == "v1":
        return _close(float(pearson(diffusion, e.scores("linear").mean(axis=1))), 0.40)
    return _close(float(pearson(to_analysis_scale(diffusion, "attentive-diffusion"), e.mean_logit("linear"))), 0.38)


def _top_linear(e: Evidence) -> Answer:
    top = e.ranking(e.scores("linear").mean(axis=1))[:3]
    return ", ".join(top), set(top) == {"DeepCluster-v2", "SwAV", "BYOL"}


def _best_recognition(e: Evidence) -> Answer:
    best = e.ranking(e.scores("linear").mean(axis=1))[0]
    return best, best == "DeepCluster-v2"


def _best_dense(e: Evidence) -> Answer:
    normals = e.task("normals", metric="mean-angle")
    best = e.ranking(e.task("detection-frozen", metric="ap50"))[0], e.ranking(normals, -1)[0]
    return f"frozen detection {best[0]}, normals {best[1]}", set(best) == {"SimCLR-v2"}


def _best_frozen_detection(e: Evidence) -> Answer:
    top = e.ranking(e.task("detection-frozen", metric="ap"))[:2]
    return ", ".join(top), set(top) == {"SimCLR-v2", "MoCo-v2"}


def _best_finetuned_detection(e: Evidence) -> Answer:
    top = [e.ranking(e.task("detection-finetune", metric=m))[0] for m in ("ap", "ap50", "ap75")]
    return ", ".join(top), set(top) == {"BYOL"}


def _cropdiseases_top(e: Evidence) -> Answer:
    tops = [e.ranking(e.task("fewshot", "cropdiseases", setting=f"{k}-shot"))[:3] for k in (5, 20, 50)]
    return "; ".join(", ".join(top) for top in tops), all(
        set(top) == {"DeepCluster-v2", "SwAV", "BYOL"} for top in tops
    )


def _eurosat_top(e: Evidence) -> Answer:
    tops = [e.ranking(e.task("fewshot", "eurosat", setting=f"{k}-shot"))[:3] for k in (5, 20, 50)]
    holds = all(top[2] == "SimCLR-v2" and set(top[:2]) == {"DeepCluster-v2", "SwAV"} for top in tops)
    return "; ".join(", ".join(top) for top in tops), holds


def _isic_top(e: Evidence) -> Answer:
    tops = [e.ranking(e.task("fewshot", "isic", setting=f"{k}-shot"))[:2] for k in (5, 20, 50)]
    return "; ".join(", ".join(top) for top in tops), all(set(top) == {"SimCLR-v1", "MoCo-v1"} for top in tops)


def _pcl_worst(e: Evidence) -> Answer:
    found = e.scores("fewshot")
    last = [e.ranking(found[task])[-1] for task in tasks_of(found) if task.dataset in CD_FSL]
    return f"last in {last.count('PCL-v1')} of {len(last)}", set(last) == {"PCL-v1"}


def _dtd_weakest(e: Evidence) -> Answer:
    found = e.scores("linear")
    rhos = {task.dataset: e.rho(found[task]) for task in tasks_of(found)}
    weakest = min(rhos, key=rhos.get)
    return f"weakest {weakest} {rhos[weakest]:.3f}; dtd {rhos['dtd']:.3f}", weakest == "dtd"


def _decreasing_correlation(e: Evidence) -> Answer:
    x = to_analysis_scale(e.source, "top1")
    rs = {
        "many-shot": float(pearson(x, e.mean_logit("linear"))),
        "few-shot": float(pearson(x, e.mean_logit("fewshot"))),
        "detection": e.r(e.task("detection-finetune", metric="ap50"), "ap50"),
        "normals": -e.r(e.task("normals", metric="mean-angle"), "mean-angle"),
    }
    values = list(rs.values())
    frozen = e.r(e.task("detection-frozen", metric="ap50"), "ap50")
    text = "; ".join(f"{name} {r:.2f}" for name, r in rs.items()) + f" (detection finetuned; frozen {frozen:.2f})"
    return text, all(a > b for a, b in pairwise(values))


def _better_calibrated(e: Evidence) -> Answer:
    ece = e.task("calibration", setting="linear")
    named = ["swav", "deepcluster-v2", "byol", "infomin", "simclr-v1"]
    lower = [e.labels[model] for model in named if ece[model] < ece[SUPERVISED]]
    return f"{len(lower)} of 5 below the supervised model: {', '.join(lower)} (v2's ECE)", len(lower) == 5


def _colour_lost(e: Evidence) -> Answer:
    metrics = ("mse-red", "mse-green", "mse-blue")
    worse = []
    for metric in metrics:
        values = e.task("inversion", metric=metric)
        worse.append(int((values.drop(SUPERVISED) > values[SUPERVISED]).sum()))
    total = len(e.matrix) - 1
    text = "; ".join(f"{METRICS[m].label} {n} of {total} worse" for m, n in zip(metrics, worse, strict=True))
    return text, min(worse) > total / 2


def _more_diffuse(e: Evidence) -> Answer:
    values = e.task("attention")
    wider = int((values.drop(SUPERVISED) > values[SUPERVISED]).sum())
    return f"{wider} of {len(values) - 1} wider than supervised", wider > (len(values) - 1) / 2


#: (version, statement in text_claims.csv) -> the function that recomputes it.
STATED: dict[tuple[str, str], Callable[[Evidence], Answer]] = {
    ("v1", "number of self-supervised models evaluated"): _ssl_models,
    ("v1", "number of downstream tasks"): _task_count,
    ("v1", "tasks on which the supervised model wins overall"): _supervised_wins_one,
    ("v1", "margin of best SSL over supervised on Aircraft and Cars (linear; absolute)"): _linear_margin,
    ("v1", "margin of SimCLR-v2 over supervised on normals"): _normals_margin,
    ("v1", "Pearson: ECE (many-shot linear) vs ImageNet top-1"): _ece_source(-0.73),
    ("v1", "Pearson: ECE (many-shot linear) vs average many-shot transfer"): _ece_transfer,
    ("v1", "Pearson: LPIPS-VGG vs ImageNet top-1"): _lpips_vgg_v1,
    ("v1", "Pearson: red-channel MSE vs ImageNet top-1"): _property_source("inversion", "mse-red", -0.57, True),
    ("v1", "Pearson: green-channel MSE vs ImageNet top-1"): _property_source("inversion", "mse-green", -0.12, True),
    ("v1", "Pearson: blue-channel MSE vs ImageNet top-1"): _property_source("inversion", "mse-blue", -0.22, True),
    ("v1", "Pearson: attentive diffusion vs ImageNet top-1"): _property_source(
        "attention", "attentive-diffusion", 0.08, True
    ),
    ("v1", "Pearson: attentive diffusion vs average transfer performance"): _diffusion_transfer,
    ("v2", "number of self-supervised models evaluated"): _ssl_models,
    ("v2", "number of downstream tasks"): _task_count,
    ("v2", "margin of best SSL over supervised on Aircraft and Cars (linear; absolute)"): _linear_margin,
    ("v2", "datasets on which supervised finetuning is best"): _finetune_supervised_best,
    ("v2", "models that outperform supervised overall after finetuning"): _finetune_outperform,
    ("v2", "supervised margin on few-shot Aircraft and Cars"): _fewshot_supervised_margin,
    ("v2", "few-shot datasets where supervised does not win (20-shot Kornblith)"): _fewshot_not_supervised,
    ("v2", "margin of SimCLR-v2 over supervised on normals"): _normals_margin,
    (
        "v2",
        "AP50 is the detection metric most correlated with ImageNet; frozen more than finetuned",
    ): _ap50_most_correlated,
    ("v2", "segmentation correlation weak; rank correlation none"): _segmentation_weak,
    ("v2", "ISIC correlation with ImageNet entirely absent"): _isic_absent,
    ("v2", "Pearson: LPIPS-VGG vs ImageNet top-1"): _property_source("inversion", "lpips-vgg", -0.69, False),
    ("v2", "Pearson: red-channel MSE vs ImageNet top-1"): _property_source("inversion", "mse-red", -0.56, False),
    ("v2", "Pearson: green-channel MSE vs ImageNet top-1"): _property_source("inversion", "mse-green", -0.11, False),
    ("v2", "Pearson: blue-channel MSE vs ImageNet top-1"): _property_source("inversion", "mse-blue", -0.22, False),
    ("v2", "Pearson: attentive diffusion vs ImageNet top-1"): _property_source(
        "attention", "attentive-diffusion", 0.09, False
    ),
    ("v2", "Pearson: attentive diffusion vs average many-shot linear transfer"): _diffusion_transfer,
}

#: The answers to the papers' questions Q1 to Q4 and the statements behind them: (version, where, statement, printed).
ANSWERS: list[tuple[str, str, str, str, Callable[[Evidence], Answer]]] = [
    ("v1", "Table 1", "Q1: the best self-supervised models beat supervision on all but one linear task", "10 of 11",
     _linear_all_but_one),
    ("v1", "Abstract", "Q1: on most tasks the best self-supervised model beats the supervised one", "most",
     _most_tasks),
    ("v2", "Tables 1-5", "Q1: the same on the 40 tasks of v2", "most", _most_tasks),
    ("v1", "Fig. 1", "Q2: correlation falls from many-shot over few-shot and detection to normals", "falling",
     _decreasing_correlation),
    ("v1", "Sec 4.5", "Q2: the weakest rank correlation of the linear tasks is that of DTD", "DTD", _dtd_weakest),
    ("v1", "Abstract", "Q3: DeepCluster-v2 comes out on top in many-shot recognition", "DeepCluster-v2",
     _best_recognition),
    ("v1", "Abstract", "Q3: SimCLR-v2 comes out on top in (frozen) detection and dense prediction", "SimCLR-v2",
     _best_dense),
    ("v1", "Sec 4.1", "Q3: DeepCluster-v2, BYOL and SwAV lead the linear tasks", "DeepCluster-v2, BYOL, SwAV",
     _top_linear),
    ("v2", "Table 1", "Q3: DeepCluster-v2, BYOL and SwAV lead the linear tasks", "DeepCluster-v2, SwAV, BYOL",
     _top_linear),
    ("v1", "Sec 4.2", "Q3: on CropDiseases DeepCluster-v2, SwAV and BYOL stand out", "top three", _cropdiseases_top),
    ("v1", "Sec 4.2", "Q3: on EuroSAT SimCLR-v2 is third after DeepCluster-v2 and SwAV", "third", _eurosat_top),
    ("v1", "Sec 4.2", "Q3: PCL-v1 transfers worst in all few-shot cells", "12 of 12", _pcl_worst),
    ("v1", "Q3", "Q3: on skin lesions (ISIC) SimCLR-v1 and MoCo-v1 come out on top", "SimCLR-v1, MoCo-v1", _isic_top),
    ("v1", "Sec 4.3", "Q3: with a frozen backbone SimCLR-v2 and MoCo-v2 lead detection (AP)", "SimCLR-v2, MoCo-v2",
     _best_frozen_detection),
    ("v1", "Sec 4.3", "Q3: with a finetuned backbone BYOL leads detection", "BYOL", _best_finetuned_detection),
    ("v1", "Sec 4.4", "Q3: SimCLR-v2 wins surface normals across the board", "5 of 5", _normals_sweep),
    ("v1", "Sec 4.6", "Q4: SwAV, DeepCluster-v2, BYOL, InfoMin and SimCLR-v1 have lower ECE than supervision", "lower",
     _better_calibrated),
    ("v1", "Q4", "Q4: self-supervised features lose colour information", "larger colour error", _colour_lost),
    ("v1", "Q4", "Q4: self-supervised features tend to be more attentively diffuse", "higher", _more_diffuse),
]  # fmt: skip
