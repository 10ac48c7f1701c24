"""TinyImageNet: 110,000 photographs of 64 x 64 pixels, 200 classes.

Inputs: pixels (n, 3, 64, 64) uint8, channels red, green, blue. Splits: the official training images without a fixed
validation split of 50 per class (rule: data/archives/validation.py); the official validation images are the test
split, because the labels of the official test images were never published.
"""

from data.archives import Official, tiny_imagenet

DESCRIPTION = "110,000 photographs, 3 x 64 x 64 pixels, 200 classes (from its archive)"
LICENCE = "ImageNet's terms: research and education, not commercial"
SOURCE = (
    "Y. Le and X. Yang (2015), Tiny ImageNet Visual Recognition Challenge, Stanford CS231N, "
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip; from ImageNet, https://image-net.org"
)

ARCHIVE = Official(
    md5={"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"},
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    survey=tiny_imagenet.survey,
    image_shape=(3, 64, 64),
    num_classes=200,
    num_examples={"train": 100_000, "test": 10_000},
    num_validation=10_000,
    mean=(0.4802, 0.4481, 0.3975),
    std=(0.2770, 0.2691, 0.2821),
    with_pickles={},
)
