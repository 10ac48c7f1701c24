"""CIFAR-100: 60,000 photographs of 32 x 32 pixels, 100 classes (the fine labels).

Inputs: pixels (n, 3, 32, 32) uint8, channels red, green, blue. Splits: the official training images without a fixed
validation split of 5,000 (rule: data/archives/validation.py), and the official test images.
"""

from data.archives import Official
from data.archives.cifar import Layout

DESCRIPTION = "60,000 photographs, 3 x 32 x 32 pixels, 100 classes (from its archive)"
LICENCE = "none stated by its authors, who ask to be cited"
SOURCE = (
    "A. Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images, Technical Report, University of "
    "Toronto, https://www.cs.toronto.edu/~kriz/cifar.html"
)

_FOLDER = "cifar-100-binary"
_LAYOUT = Layout(
    members={"train": (f"{_FOLDER}/train.bin",), "test": (f"{_FOLDER}/test.bin",)},
    label_bytes=2,  # coarse, fine
    class_names=f"{_FOLDER}/fine_label_names.txt",
    pickled_folder="cifar-100-python",
)

ARCHIVE = Official(
    md5={"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    survey=_LAYOUT.survey,
    image_shape=(3, 32, 32),
    num_classes=100,
    num_examples={"train": 50_000, "test": 10_000},
    num_validation=5_000,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    with_pickles={"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
)
