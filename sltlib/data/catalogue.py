"""The data sets: what each is, where it is looked for, how it is read and split; images or recordings.

To add one, write a reader and add one entry to `DATASETS`. Nothing here needs torch.
"""

from __future__ import annotations

import lzma
from dataclasses import replace

import numpy as np

from sltlib.base import paths
from sltlib.base.words import near, shown
from sltlib.data import formats, recordings, simulated
from sltlib.data.archives import Archive
from sltlib.data.binary import contents, read_idx
from sltlib.data.entry import Info
from sltlib.data.splits import SPLITS, hold_out


def _read_sample(info, folder):
    """Rows of one label and the pixels, the splits one after the other (data/make_fashion_sample.py)."""
    (name,) = info.files
    raw = lzma.decompress(contents(info, folder, name))
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 1 + info.size**2)
    splits, start = {}, 0
    for split in SPLITS:
        part = rows[start : start + info.counts[split]]
        splits[split] = (part[:, 1:].reshape(-1, 1, info.size, info.size), part[:, 0].astype(np.int64))
        start += len(part)
    return splits


def _read_fashion_mnist(info, folder):
    return hold_out(info, *read_idx(info, folder))


def _read_formats(info, folder):
    return hold_out(info, *formats.read(info, formats.find(info, [folder])))


def _simulated(images):
    """The reader of simulated recordings of an image set, in its own splits; a folder is the image set's own business."""

    def read(info, folder):
        return simulated.recordings(DATASETS[images].read())

    return read


_CLOTHES = tuple("T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(","))
_GESTURES = tuple(
    "hand clapping,right hand wave,left hand wave,right arm clockwise,right arm counter-clockwise,"
    "left arm clockwise,left arm counter-clockwise,arm roll,air drums,air guitar,other gestures".split(",")
)
_CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
_CIFAR100 = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
    dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
    leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
    otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
    road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
    """.split()
)

_MENDELEY = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files"
_HOW = (
    "`python -m sltlib data get {0}` fetches it; or put {1} of www.cs.toronto.edu/~kriz/cifar.html, unpacked,"
    " into data/{0}/, or name a folder or an archive: `python -m sltlib data use {0} PATH`"
)

DATASETS = {
    "fashion": Info(
        title="Fashion-MNIST sample",
        channels=1,
        size=28,
        classes=_CLOTHES,
        counts={"train": 8000, "val": 1000, "test": 2000},
        places=("fashion", str(paths.ROOT / "data" / "fashion")),
        files={"fashion-sample.xz": 4164620},
        reader=_read_sample,
        needs="nothing: the sample is part of this repository",
        how="restore it with `git checkout data/fashion`",
        sha256={"fashion-sample.xz": "96c65bfa50947442909a2991c868e2f7054cdd5af9f72c3d79faee69fce00907"},
    ),
    "fashion-mnist": Info(
        title="Fashion-MNIST",
        channels=1,
        size=28,
        classes=_CLOTHES,
        counts={"train": 55000, "val": 5000, "test": 10000},
        places=("fashion-mnist", "/usr/share/datasets/fashion-mnist"),
        files={
            "train-images-idx3-ubyte.gz": 47040016,
            "train-labels-idx1-ubyte.gz": 60008,
            "t10k-images-idx3-ubyte.gz": 7840016,
            "t10k-labels-idx1-ubyte.gz": 10008,
        },
        reader=_read_fashion_mnist,
        needs="the four idx .gz files of Fashion-MNIST (31 MB)",
        how="on Debian or Ubuntu `apt-get install dataset-fashion-mnist`; else put the four .gz files of"
        " github.com/zalandoresearch/fashion-mnist into data/fashion-mnist/",
        sha256={
            "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    ),
    "cifar10": Info(
        title="CIFAR-10",
        channels=3,
        size=32,
        classes=_CIFAR10,
        counts={"train": 45000, "val": 5000, "test": 10000},
        places=("cifar10",),
        files={f"{name}.bin": 30730000 for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")},
        reader=_read_formats,
        needs="the binary version (six .bin files), Hugging Face's parquet files, PNGs in a folder for each"
        " class, or the Python version",
        how=_HOW.format("cifar10", "cifar-10-binary.tar.gz"),
        formats=("binary", "parquet", "classes", "pickle"),
        md5={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        mean_pixel=(0.4914, 0.4822, 0.4465),
        archives=(
            Archive(
                name="cifar-10-binary.tar.gz",
                url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                md5="c32a1d4ab5d03f1284b67883e8d87530",
                holds=("cifar-10-batches-bin",),
            ),
        ),
    ),
    "cifar100": Info(
        title="CIFAR-100",
        channels=3,
        size=32,
        classes=_CIFAR100,
        counts={"train": 45000, "val": 5000, "test": 10000},
        places=("cifar100",),
        files={"train.bin": 153700000, "test.bin": 30740000},
        reader=_read_formats,
        needs="the binary version (train.bin, test.bin), Hugging Face's parquet files, PNGs in a folder for"
        " each class, or the Python version",
        how=_HOW.format("cifar100", "cifar-100-binary.tar.gz"),
        formats=("binary", "parquet", "classes", "pickle"),
        md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        mean_pixel=(0.5071, 0.4865, 0.4409),
        archives=(
            Archive(
                name="cifar-100-binary.tar.gz",
                url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                md5="03b5dce01913d631647c71ecec9e9cb8",
                holds=("cifar-100-binary",),
            ),
        ),
    ),
    "cifar10-jpeg": Info(
        title="CIFAR-10 (JPEG q75)",
        channels=3,
        size=32,
        classes=_CIFAR10,
        counts={"train": 45000, "val": 5000, "test": 10000},
        places=("cifar10-jpeg",),
        files={},
        reader=_read_formats,
        needs="CIFAR-10's images as JPEG of quality 75: train/<class>/*.jpg and test/<class>/*.jpg",
        how="put train/ and test/ into data/cifar10-jpeg/, or name their folder or archive:"
        " `python -m sltlib data use cifar10-jpeg PATH`",
        formats=("jpeg",),
        mean_pixel=(0.4914, 0.4822, 0.4465),
    ),
    "fashion-dvs": Info(
        title="Fashion-MNIST sample, simulated events",
        channels=2,
        size=34,
        classes=_CLOTHES,
        counts={"train": 8000, "val": 1000, "test": 2000},
        places=("fashion", str(paths.ROOT / "data" / "fashion")),
        files={"fashion-sample.xz": 4164620},
        reader=_simulated("fashion"),
        needs="nothing: the events are simulated from the sample in this repository",
        how="restore the sample with `git checkout data/fashion`",
        event=True,
    ),
    "n-mnist": Info(
        title="N-MNIST",
        channels=2,
        size=34,
        classes=tuple("0123456789"),
        counts={"train": 55000, "val": 5000, "test": 10000},
        places=("n-mnist", "NMNIST"),
        files={},
        folders=("Train", "Test"),
        reader=recordings.read_nmnist,
        version=2,
        needs="the folders Train and Test of N-MNIST, 70,000 .bin files",
        how="`python -m sltlib data get n-mnist` fetches it; or unpack train.zip and test.zip of"
        " www.garrickorchard.com/datasets/n-mnist into data/n-mnist/",
        event=True,
        archives=(
            Archive(
                name="train.zip",
                url=f"{_MENDELEY}/39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
                md5="20959b8e626244a1b502305a9e6e2031",
                holds=("Train",),
            ),
            Archive(
                name="test.zip",
                url=f"{_MENDELEY}/05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
                md5="69ca8762b2fe404d9b9bad1103e97832",
                holds=("Test",),
            ),
        ),
    ),
    "n-mnist-small": Info(
        title="N-MNIST, SLAYER's sample",
        channels=2,
        size=34,
        classes=tuple("0123456789"),
        counts={"train": 900, "val": 100, "test": 100},
        places=("n-mnist-small", "nmnist1100"),
        files={},
        folders=("Train", "Test"),
        reader=recordings.read_nmnist,
        version=2,
        needs="1,000 training and 100 test recordings of N-MNIST, the sample that comes with SLAYER",
        how="put its recordings into data/n-mnist-small/ as Train/<digit>/*.bin and Test/<digit>/*.bin",
        event=True,
    ),
    "dvs128-gesture": Info(
        title="DVS128 Gesture",
        channels=2,
        size=128,
        classes=_GESTURES,
        counts={"train": 970, "val": 107, "test": 264},
        places=("dvs128-gesture", "DVSGesture"),
        files={},
        folders=("ibmGestureTrain", "ibmGestureTest"),
        reader=recordings.read_gesture,
        version=2,
        needs="tonic's cut of the recordings into 1,077 + 264 gestures (ibmGestureTrain, ibmGestureTest)",
        how="`python -m sltlib data get dvs128-gesture` fetches it; or unpack ibmGestureTrain.tar.gz and"
        " ibmGestureTest.tar.gz into data/dvs128-gesture/",
        event=True,
        archives=(
            Archive(
                name="ibmGestureTrain.tar.gz",
                url="https://figshare.com/ndownloader/files/38022171",
                md5="3a8f0d4120a166bac7591f77409cb105",
                holds=("ibmGestureTrain",),
            ),
            Archive(
                name="ibmGestureTest.tar.gz",
                url="https://figshare.com/ndownloader/files/38020584",
                md5="56070e45dadaa85fff82e0fbfbc06de5",
                holds=("ibmGestureTest",),
            ),
        ),
    ),
    "cifar10-dvs": Info(
        title="CIFAR10-DVS",
        channels=2,
        size=128,
        classes=_CIFAR10,
        counts={"train": 8000, "val": 1000, "test": 1000},
        places=("cifar10-dvs", "CIFAR10DVS"),
        files={},
        folders=_CIFAR10,
        reader=recordings.read_cifar10_dvs,
        version=2,
        needs="a folder of 1,000 .aedat4 files for each of the ten classes",
        how="`python -m sltlib data get cifar10-dvs` fetches it; or unpack CIFAR10DVS.zip and the ten .zip"
        " files in it into data/cifar10-dvs/",
        event=True,
        archives=(
            Archive(
                name="CIFAR10DVS.zip",
                url="https://figshare.com/ndownloader/files/38023437",
                md5="ce3a4a0682dc0943703bd8f749a7701c",
                holds=_CIFAR10,
                nested=True,
            ),
        ),
        packages=("tonic", "aedat"),
    ),
}
DATASETS["fashion-mnist-dvs"] = replace(
    DATASETS["fashion-mnist"],
    title="Fashion-MNIST, simulated events", channels=2, size=34, reader=_simulated("fashion-mnist"), event=True,
)  # fmt: skip


def info(name: str) -> Info:
    """The data set of that name; ValueError lists the known names and the close ones."""
    if isinstance(name, str) and name in DATASETS:
        return DATASETS[name]
    close = near(name, DATASETS)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise ValueError(f"dataset={shown(name)} is not known: choose from {', '.join(DATASETS)}{hint}")


def version(name: str, image_size: int = 0, timesteps: int = 0) -> int:
    """The version of a data set's numbers, a part of an Experiment's key above 1.

    2 where counts above 255 were cut off or the validation images were not in proportion once.
    """
    if name == "fashion-dvs" and 0 < image_size < 11 and timesteps < 3:  # its only frames with such counts
        return 2
    return DATASETS[name].version if name in DATASETS else 1
