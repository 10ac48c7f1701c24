"""MNIST: 70,000 handwritten digits of 28 x 28 pixels, 10 classes.

Inputs: pixels (n, 1, 28, 28) uint8. Splits: the official training images without a fixed validation split of 5,000
(rule: data/archives/validation.py), and the official test images.
"""

from data.archives import Official, idx

DESCRIPTION = "70,000 handwritten digits, 28 x 28 pixels, 10 classes (from its archive)"
LICENCE = "none stated by its authors; distributed under CC BY-SA 3.0"
SOURCE = (
    "Y. LeCun, L. Bottou, Y. Bengio and P. Haffner (1998), Gradient-Based Learning Applied to Document Recognition, "
    "Proceedings of the IEEE 86(11), http://yann.lecun.com/exdb/mnist/"
)

ARCHIVE = Official(
    md5={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    survey=idx.survey,
    image_shape=(1, 28, 28),
    num_classes=10,
    num_examples={"train": 60_000, "test": 10_000},
    num_validation=5_000,
    mean=(0.1307,),
    std=(0.3081,),
    with_pickles={},
)
