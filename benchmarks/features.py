"""Time feature extraction against the usual loop: `uv run python benchmarks/features.py`.

The usual loop is that of the paper's own software: a torch DataLoader that decodes each image with Pillow, batches of
64, float32, channels first, the features moved to the host batch by batch; one pass over training and validation images
for the choice of the penalty, one over both together, one over the test images, all of it again for a second input
normalisation; in few-shot evaluation the network sees the images of every episode. Ours decodes each image once and
shows it to the network once.

The first table has both, image by image, on the same files and weights in turn; the second puts the measured times
together to what one model costs on a many-shot and a few-shot dataset of the given sizes (by default FGVC Aircraft and
EuroSAT). What is put together rather than measured is said.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--arch", default="resnet50")
parser.add_argument("--checkpoint", type=Path, help="results/checkpoints/MODEL.safetensors; random weights without")
parser.add_argument("--images", type=int, default=128, help="images of a round")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--workers", type=int, default=os.cpu_count())
parser.add_argument("--many-shot", nargs=3, type=int, default=[3334, 3333, 3333], help="train, val and test images")
parser.add_argument("--classes", type=int, default=100, help="of the many-shot dataset")
parser.add_argument("--pool", type=int, default=27_000, help="images of the few-shot dataset")
parser.add_argument("--skip-linear", action="store_true", help="leave out scikit-learn's sweep, which takes minutes")
options = parser.parse_args()

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from photos import Photos, make_photos  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.utils._testing import ignore_warnings  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from ssltransfer.datasets.images import prepare_images  # noqa: E402
from ssltransfer.device import choose_device  # noqa: E402
from ssltransfer.models.backbone_file import load_backbone  # noqa: E402
from ssltransfer.models.features import extract_features  # noqa: E402
from ssltransfer.models.fusion import optimise_for_inference  # noqa: E402
from ssltransfer.models.input_norm import normalise  # noqa: E402
from ssltransfer.models.resnet import build_resnet  # noqa: E402
from ssltransfer.protocols.fewshot import FewShotResult, episode_accuracy, sample_episodes  # noqa: E402
from ssltransfer.protocols.linear.evaluation import lambda_grid  # noqa: E402
from ssltransfer.protocols.linear.logistic import fit_path  # noqa: E402
from ssltransfer.row_file import ArrayFile  # noqa: E402

SHOTS, QUERIES, EPISODES, WAYS = (5, 20, 50), 15, 600, 5


def seconds(function, *arguments):
    """Seconds that a call takes, the work it left to the device included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function(*arguments)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def usual_loop():
    """Features of all images, as most programs extract them."""
    loader = DataLoader(Photos(folder, names, as_float=True), batch_size=64, num_workers=options.workers)
    return np.concatenate([backbone(batch.to(device)).cpu().numpy() for batch in loader])


@torch.inference_mode()
def network_alone(network, batch):
    """The network on images that are on the device already."""
    for _ in range(0, options.images, len(batch)):
        network(normalise(batch, "imagenet"))


def matrix_peak():
    """Multiply-adds a second of a float32 matrix product: the best of five."""
    size = 8192 if device.type == "cuda" else 1536
    a = torch.rand(size, size, device=device)
    return size**3 / min(seconds(torch.mm, a, a) for _ in range(5))


def multiply_adds():
    """Multiply-adds of an image."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        backbone(torch.zeros(1, 3, 224, 224, device=device))
    return counter.get_total_flops() / 2


def ours(output):
    extract_features(backbone, ArrayFile(images_file), "imagenet", output, device)


def measure():
    """Print the first table; returns seconds an image of the usual loop, of our decoding and of our extraction."""
    packed = optimise_for_inference(backbone, device)
    batch = torch.from_numpy(ArrayFile(images_file)[0:64]).to(device)
    for network in (packed, backbone):
        network_alone(network, batch[:8])
    rounds = []
    for number in range(options.rounds):
        rounds.append(
            {
                "the usual loop": seconds(usual_loop),
                "ours: decode once": seconds(
                    prepare_images, folder, names, "resize224", folder / f"{number}.npy", "", options.workers
                ),
                "ours: extract": seconds(ours, folder / "features.npy"),
                "network alone, as usual": seconds(network_alone, backbone, batch),
                "network alone, ours": seconds(network_alone, packed, batch),
                "peak": matrix_peak(),
            }
        )
    peak, work = max(row.pop("peak") for row in rounds), multiply_adds()
    print(f"Largest difference of features, relative to the largest feature: {difference():.1e}")
    print(f"Matrix products of this device: {peak / 1e9:.0f} G multiply-adds a second; an image: {work / 1e9:.2f} G\n")
    print("| | images a second | share of the matrix peak | against the usual loop |\n| --- | --- | --- | --- |")
    medians = {}
    for name in rounds[0]:
        medians[name] = statistics.median(row[name] for row in rounds) / options.images
        ratio = statistics.median(row["the usual loop"] / row[name] for row in rounds)
        share = "" if "decode" in name else f"{work / medians[name] / peak:.0%}"
        print(f"| {name} | {1 / medians[name]:.1f} | {share} | {ratio:.2f} |")
    print(
        "\nWhere the time of a model goes, ms an image: " + ", ".join(f"{k} {v:.2f}" for k, v in parts(packed)) + "\n"
    )
    return (medians[name] for name in ("the usual loop", "ours: decode once", "ours: extract"))


@torch.inference_mode()
def parts(network):
    """Name and milliseconds an image of what extraction does, one after another; some of it overlaps in a real pass."""
    images, features = ArrayFile(images_file), np.zeros((options.images, backbone.width), np.float32)
    blocks = [slice(start, start + 64) for start in range(0, options.images, 64)]
    moved = [torch.from_numpy(images[block]) for block in blocks]
    ready = [normalise(block.to(device), "imagenet") for block in moved]
    written = ArrayFile.create(folder / "written.npy", features.shape, np.float32)
    steps = {
        "read": lambda: [images[block] for block in blocks],
        "move and normalise": lambda: [normalise(block.to(device), "imagenet") for block in moved],
        "network": lambda: [network(block) for block in ready],
        "write": lambda: (written.write(0, features), written.flush()),
    }
    for name, step in steps.items():
        yield name, 1000 * min(seconds(step) for _ in range(options.rounds)) / options.images


def difference():
    expected = usual_loop()
    ours(folder / "features.npy")
    return np.abs(np.load(folder / "features.npy") - expected).max() / np.abs(expected).max()


def made_features(n, classes):
    """Rectified features with some class structure."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    centres = rng.normal(size=(classes, 2048)).astype(np.float32)
    features = rng.standard_normal((n, 2048), dtype=np.float32)
    features += 0.2 * centres[labels]
    return np.maximum(features, 0, out=features), labels


@ignore_warnings(category=ConvergenceWarning)
def usual_sweep(features, labels, train):
    """Fit scikit-learn's L-BFGS from the weakest penalty on, 100 iterations a point, warm; then on everything."""
    model = LogisticRegression(max_iter=100, warm_start=True)
    for penalty in lambda_grid(1e-6, 1e5, 45):
        model.set_params(C=1 / penalty).fit(features[:train], labels[:train])
    model.set_params(C=0.1).fit(features, labels)


def our_sweep(features, labels, train):
    grid = lambda_grid(1e-6, 1e5, 45)
    for _ in fit_path(features[:train], labels[:train], grid, options.classes):
        pass
    for _ in fit_path(features, labels, grid[28:29], options.classes):
        pass


def measure_shot(features, labels, name, shot):
    """Few-shot accuracy in percent."""
    episodes = sample_episodes(labels, name, shot, QUERIES, WAYS, EPISODES, seed=0)
    return FewShotResult(WAYS * QUERIES, episode_accuracy(features, episodes, shot)).accuracy


def every_shot(pool, labels):
    for shot in SHOTS:
        measure_shot(pool, labels, "eurosat", shot)


def compose(usual, decode, extract):
    """Print the second table."""
    train, val, test = options.many_shot
    pool, labels = made_features(options.pool, 10)
    fewshot = min(seconds(every_shot, pool, labels) for _ in range(3))
    print(f"Few-shot on features, {EPISODES} episodes x {len(SHOTS)} shots of {options.pool} x 2048: {fewshot:.2f} s\n")
    episodes = EPISODES * WAYS * sum(shot + QUERIES for shot in SHOTS)
    passes = 2 * (train + val) + test
    sweep = {"usual": 0.0, "ours": 0.0}
    if not options.skip_linear:
        features, classes = made_features(train + val, options.classes)
        sweep = {
            "usual": seconds(usual_sweep, features, classes, train),
            "ours": seconds(our_sweep, features, classes, train),
        }
    print(f"Sweep, {train} x 2048, {options.classes} classes: {sweep['usual']:.0f} s, ours {sweep['ours']:.0f} s\n")
    print("| input normalisations | the paper's software | pool extracted once | ours | against the one | the other |")
    print("| --- | --- | --- | --- | --- | --- |")
    for norms in (1, 2):
        original = norms * ((passes + episodes) * usual + sweep["usual"])
        careful = norms * ((passes + options.pool) * usual + sweep["usual"] + fewshot)
        every = train + val + test + options.pool
        own = every * decode + norms * (every * extract + sweep["ours"] + fewshot)
        hours = " | ".join(f"{value / 3600:.2f} h" for value in (original, careful, own))
        print(f"| {norms} | {hours} | {original / own:.1f} | {careful / own:.1f} |")


with tempfile.TemporaryDirectory() as temporary:
    device = choose_device(os.cpu_count())
    folder = Path(temporary)
    make_photos(folder, min(options.images, 200))
    files = sorted(path.name for path in folder.glob("*.jpg"))
    names = [files[row % len(files)] for row in range(options.images)]
    images_file = folder / "images.npy"
    prepare_images(folder, names, "resize224", images_file, "", options.workers)
    made = load_backbone(options.checkpoint, options.arch) if options.checkpoint else build_resnet(options.arch, 0)
    backbone = made.eval().to(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    print(
        f"{name}, torch {torch.__version__}; {options.arch}, {options.images} images, {options.rounds} rounds in turn\n"
    )
    compose(*measure())
