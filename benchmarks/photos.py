"""JPEG photographs for the benchmarks, and the way most programs read them."""

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_photos(folder, count=200, seed=0):
    """Write crops of the photographs that come with scikit-image as JPEG files of 500 x 375 pixels or upright."""
    rng = np.random.default_rng(seed)
    photos = [getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
    for number in range(count):
        photo = Image.fromarray(photos[number % len(photos)])
        size = (500, 375) if rng.random() < 0.75 else (375, 500)
        scale = rng.uniform(0.6, 1) * min(photo.width / size[0], photo.height / size[1])
        width, height = (int(side * scale) for side in size)
        left, top = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
        crop = photo.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.LANCZOS)
        crop.save(folder / f"{number:04}.jpg", quality=90)


class Photos(Dataset):
    """What a user would write with torchvision."""

    def __init__(self, root, names, as_float):
        last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)] if as_float else []
        steps = [v2.Resize(224, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.PILToTensor(), *last]
        self.root, self.names, self.transform = root, names, v2.Compose(steps)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, row):
        return self.transform(pil_loader(self.root / self.names[row]))
