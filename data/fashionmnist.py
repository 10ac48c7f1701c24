"""Fashion-MNIST: 70,000 articles of clothing, grey, of 28 x 28 pixels, 10 classes.

Inputs: pixels (n, 1, 28, 28) uint8. Splits: the official training images without a fixed validation split of 5,000
(rule: data/archives/validation.py), and the official test images.
"""

from data.archives import Official, idx

DESCRIPTION = "70,000 articles of clothing, 28 x 28 pixels, 10 classes (from its archive)"
LICENCE = "MIT"
SOURCE = (
    "H. Xiao, K. Rasul and R. Vollgraf (2017), Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning "
    "Algorithms, arXiv:1708.07747, https://github.com/zalandoresearch/fashion-mnist"
)

ARCHIVE = Official(
    md5={
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    survey=idx.survey,
    image_shape=(1, 28, 28),
    num_classes=10,
    num_examples={"train": 60_000, "test": 10_000},
    num_validation=5_000,
    mean=(0.286,),
    std=(0.353,),
    with_pickles={},
)
