import itertools

import pandas as pd
import pytest

from reports._extensions import extensions
from reports._names import METHOD_ORDER
from reports._results import Results
from reports.figures._palette import sideways, styles


def test_a_method_looks_the_same_whoever_stands_beside_it():
    everyone = styles(METHOD_ORDER)
    for method in METHOD_ORDER:
        assert styles([method])[method] == everyone[method]
        assert styles(["a_new_method", method])[method] == everyone[method]


def test_no_two_methods_share_a_colour_or_a_mark():
    found = styles([*METHOD_ORDER, "new_one", "other", "third", "fourth"]).values()
    assert len({style.colour for style in found}) == len(found) == 11
    assert len({style.shape for style in found}) == 11


def test_colours_differ_in_lightness_or_hue_and_read_on_white_and_near_black():
    def luminance(colour):
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for style in styles(METHOD_ORDER).values():
        on_white = 1.05 / (luminance(style.colour) + 0.05)
        on_dark = (luminance(style.colour) + 0.05) / (luminance("#1b2320") + 0.05)
        assert on_white > 1.9, style  # thick marks, never text
        assert on_dark > 2.9, style


def test_figures_agree_on_the_look_of_every_method(results_file):
    results = Results.read(results_file())
    looks = []
    for name in ("accuracy", "cost"):
        specification = extensions("reports.figures")[name].chart(results, "mlp-digits").to_dict()
        layers = specification.get("layer") or specification["spec"]["layer"]
        points = next(layer for layer in layers if "shape" in layer["encoding"])["encoding"]
        colours, shapes = points["color"]["scale"], points["shape"]["scale"]
        assert colours["domain"] == shapes["domain"]
        looks.append(dict(zip(colours["domain"], zip(colours["range"], shapes["range"], strict=True), strict=True)))
    assert all(first == second for first, second in itertools.pairwise(looks))
    assert looks[0]["Rare Gems"] == ("#009e73", "diamond")


def test_marks_move_sideways_by_equal_steps_around_their_place():
    methods = pd.Series(["imp", "lomp", "rare_gems", "imp"])
    factors = sideways(methods, 0.01, 0.01, 1.0)
    assert factors.tolist() == pytest.approx([1.0, 100**-0.01, 100**0.01, 1.0])
    assert sideways(pd.Series(["lomp"]), 0.01, 0.01, 1.0).tolist() == [1.0]
