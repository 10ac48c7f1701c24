"""CIFAR-10: 60,000 photographs of 32 x 32 pixels, 10 classes.

Inputs: pixels (n, 3, 32, 32) uint8, channels red, green, blue. Splits: the official training images without a fixed
validation split of 5,000 (rule: data/archives/validation.py), and the official test images.
"""

from data.archives import Official
from data.archives.cifar import Layout

DESCRIPTION = "60,000 photographs, 3 x 32 x 32 pixels, 10 classes (from its archive)"
LICENCE = "none stated by its authors, who ask to be cited"
SOURCE = (
    "A. Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images, Technical Report, University of "
    "Toronto, https://www.cs.toronto.edu/~kriz/cifar.html"
)

_FOLDER = "cifar-10-batches-bin"
_LAYOUT = Layout(
    members={
        "train": tuple(f"{_FOLDER}/data_batch_{number}.bin" for number in range(1, 6)),
        "test": (f"{_FOLDER}/test_batch.bin",),
    },
    label_bytes=1,
    class_names=f"{_FOLDER}/batches.meta.txt",
    pickled_folder="cifar-10-batches-py",
)

ARCHIVE = Official(
    md5={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    survey=_LAYOUT.survey,
    image_shape=(3, 32, 32),
    num_classes=10,
    num_examples={"train": 50_000, "test": 10_000},
    num_validation=5_000,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    with_pickles={"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
)
