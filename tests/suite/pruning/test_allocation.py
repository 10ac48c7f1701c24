"""Smart ratios against published counts, and water-filling against its definition."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.planner import kept_count
from suite.pruning.allocation import fill, smart_ratio_counts


def resnet20() -> list[int]:
    """Layer sizes with padded shortcuts: 3 stages of 3 blocks of 2 convolutions, 16, 32 and 64 channels."""
    widths = [16] * 7 + [32] * 6 + [64] * 6
    return [9 * fan_in * fan_out for fan_in, fan_out in zip([3, *widths], widths, strict=False)] + [64 * 10]


def resnet32_double() -> list[int]:
    """ResNet32 of twice the width, whose two shortcuts are 1 x 1 convolutions after the second of their block."""
    sizes = [9 * 3 * 32] + [9 * 32 * 32] * 10
    for narrow, wide in ((32, 64), (64, 128)):
        sizes += [9 * narrow * wide, 9 * wide * wide, narrow * wide] + [9 * wide * wide] * 8
    return [*sizes, 128 * 10]


def vgg(*widths: int) -> list[int]:
    """Layer sizes: 3 x 3 convolutions of the given widths, one linear layer for ten classes."""
    return [9 * fan_in * fan_out for fan_in, fan_out in zip([3, *widths], widths, strict=False)] + [512 * 10]


VGG16 = vgg(64, 64, 128, 128, *[256] * 3, *[512] * 6)
VGG19 = vgg(64, 64, 128, 128, *[256] * 4, *[512] * 8)


# Kept by the original's truncating rule: ResNet20 at sparsity 0.9856, the others at 0.98.
RESNET20 = [43, 210, 189, 169, 150, 132, 116, 201, 345, 291, 243, 199, 159, 247, 371, 265, 176, 106, 53, 192]
RESNET32 = [
    *(136, 1376, 1295, 1216, 1140, 1067, 995, 927, 860, 797, 735),
    *(1353, 2482, 125, 2060, 1864, 1677, 1501, 1334, 1177, 1030, 892),
    *(1530, 2590, 119, 1766, 1412, 1098, 824, 588, 392, 235, 117, 384),
]
VGG19_KEPT = [
    *(1728, 36864, 61815, 38852, 43100, 51309, 31897, 20351, 26312, 34101, 21920),
    *(13814, 8407, 4832, 2526, 1110, 1536),
]


def by_the_original(sizes: list[int], sparsity: float) -> list[int]:
    """Return what the original keeps of a VGG: a full layer at the front hands its surplus to the next one alone."""
    depth, total = len(sizes), sum(sizes)
    ratios = [((depth - layer) ** 2 + (depth - layer)) / (layer + 1) ** 2 for layer in range(depth - 1)]
    in_classifier = int(0.3 * sizes[-1])
    test = sum(int(size * ratio) for size, ratio in zip(sizes, ratios, strict=False))
    fractions = [ratio * (int(total * (1 - sparsity)) - in_classifier) / test for ratio in ratios]
    for layer, size in enumerate(sizes[:-2]):
        if fractions[layer] < 1:
            break
        fractions[layer + 1] += int((fractions[layer] - 1) * size) / sizes[layer + 1]
        fractions[layer] = 1
    return [int(fraction * size) for fraction, size in zip(fractions, sizes, strict=False)] + [in_classifier]


def test_the_layers_are_those_of_the_papers() -> None:
    assert (len(resnet20()), sum(resnet20())) == (20, 268_336)
    assert (len(resnet32_double()), sum(resnet32_double())) == (34, 1_855_584)


def test_resnet20_differs_from_the_original_by_its_truncation() -> None:
    found = smart_ratio_counts(resnet20(), 3_864)
    difference = [new - old for new, old in zip(found, RESNET20, strict=True)]
    assert [layer for layer, more in enumerate(difference, 1) if more] == [1, 6, 10, 14, 15, 16, 17]
    assert max(difference) == 1
    assert sum(found) == 3_864


def test_resnet32_differs_from_the_original_by_at_most_one_per_layer() -> None:
    num_keep = kept_count(1_855_584, 0.98)
    found = smart_ratio_counts(resnet32_double(), num_keep)
    assert {new - old for new, old in zip(found, RESNET32, strict=True)} <= {0, 1}
    assert sum(found) == num_keep == 37_112


def test_the_original_s_rule_for_a_vgg_gives_its_published_counts() -> None:
    assert (len(VGG19), sum(VGG19), len(VGG16), sum(VGG16)) == (17, 20_024_000, 14, 14_715_584)
    assert by_the_original(VGG19, 0.98) == VGG19_KEPT


@pytest.mark.parametrize(("sizes", "sparsity"), [(VGG16, 0.999), (VGG16, 0.9995), (VGG19, 0.999), (VGG19, 0.9995)])
def test_a_vgg_without_a_full_layer_differs_from_the_original_by_at_most_one_per_layer(
    sizes: list[int], sparsity: float
) -> None:
    found = smart_ratio_counts(sizes, kept_count(sum(sizes), sparsity), "vgg")
    assert all(count < size for count, size in zip(found, sizes, strict=True))
    assert {new - old for new, old in zip(found, by_the_original(sizes, sparsity), strict=True)} <= {0, 1}


def test_vgg19_has_the_published_proportions_behind_its_full_layers() -> None:
    # Of the published counts the third has the surplus of the first two; here all behind them share it.
    found = smart_ratio_counts(VGG19, 400_480, "vgg")
    assert (found[:2], found[-1]) == (VGG19_KEPT[:2], VGG19_KEPT[-1]) == (VGG19[:2], 1536)
    assert all(count < size for count, size in zip(found[2:], VGG19[2:], strict=True))
    more = (400_480 - 1728 - 36_864 - 1536 - found[2]) / sum(VGG19_KEPT[3:-1])
    for new, old in zip(found[3:-1], VGG19_KEPT[3:-1], strict=True):
        assert abs(new - more * old) <= 1 + more
    assert sum(VGG19_KEPT) <= sum(found) == 400_480 <= sum(VGG19_KEPT) + len(VGG19)


@pytest.mark.parametrize(
    ("sparsity", "kept"), [(0.9, 1_471_552), (0.95, 735_774), (0.98, 294_305), (0.9856, 211_898), (0.995, 73_572)]
)
def test_vgg16_keeps_the_published_totals_up_to_their_truncation(sparsity: float, kept: int) -> None:
    found = smart_ratio_counts(VGG16, kept_count(sum(VGG16), sparsity), "vgg")
    assert abs(sum(by_the_original(VGG16, sparsity)) - kept) <= 1  # of the rounding of 1 - sparsity
    assert kept <= sum(found) <= kept + len(VGG16)
    assert found[-1] == 1536
    assert found[0] == 1728  # full, in the original as well
    fractions = [count / size for count, size in zip(found, VGG16, strict=True)][:-1]
    assert all(earlier >= later for earlier, later in pairwise(fractions))


def test_the_law_of_vgg_by_hand() -> None:
    # L = 3: r = 12 / 1, 6 / 4. The classifier keeps 0.3 * 100 = 30; 45 are spread in proportion to 8 and 1.
    assert smart_ratio_counts([100, 100, 100], 75, "vgg") == [40, 5, 30]


@pytest.mark.parametrize(
    ("sparsity", "num_keep", "first", "last"),
    [(0.9, 26_834, 316, 385), (0.95, 13_417, 157, 191), (0.98, 5_367, 61, 75), (0.995, 1_342, 14, 17)],
)
def test_resnet20_at_other_sparsities(sparsity: float, num_keep: int, first: int, last: int) -> None:
    assert kept_count(268_336, sparsity) == num_keep
    found = smart_ratio_counts(resnet20(), num_keep)
    assert (found[0], found[-2], found[-1]) == (first, last, 192)
    assert sum(found) == num_keep


def test_kept_fractions_fall_with_depth() -> None:
    found = smart_ratio_counts([10_000] * 8, 20_000)
    assert all(earlier > later for earlier, later in pairwise(found[:-1]))


def test_a_network_of_linear_layers_by_hand() -> None:
    # L = 3: r = 12, 6. The classifier keeps 0.3 * 100 = 30; 90 are spread in proportion to 12 * 100 and 6 * 100.
    assert smart_ratio_counts([100, 100, 100], 120) == [60, 30, 30]


def test_the_classifier_takes_at_most_half_of_a_small_budget() -> None:
    assert smart_ratio_counts([1000, 1000], 100) == [50, 50]


def test_a_full_layer_gives_its_surplus_to_the_others() -> None:
    # 30 for the classifier; demands are 12 * 10 and 6 * 1000, so the first layer's share of 670 is 13 of its 10.
    assert smart_ratio_counts([10, 1000, 100], 700) == [10, 660, 30]
    assert smart_ratio_counts([10, 1000, 100], 1040) == [10, 1000, 30]


def test_everything_is_kept_when_everything_may_be() -> None:
    assert smart_ratio_counts([10, 20, 30], 60) == [10, 20, 30]
    assert smart_ratio_counts([10, 20, 30], 59) == [10, 20, 29]  # the body is full, the rest is the classifier's


def test_a_single_layer_takes_it_all() -> None:
    assert smart_ratio_counts([40], 7) == [7]


@pytest.mark.parametrize("num_keep", [0, 2, 301])
def test_a_budget_that_cannot_be_spread(num_keep: int) -> None:
    with pytest.raises(ValueError, match=rf"num_keep={num_keep} cannot be spread\. Expected: 3 <= num_keep <= 300\."):
        smart_ratio_counts([100, 100, 100], num_keep)


def test_as_many_weights_as_layers_is_one_for_each() -> None:
    assert smart_ratio_counts([100, 100, 100, 100, 10_000], 5) == [1, 1, 1, 1, 1]


@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=12), data=st.data())
def test_every_budget_is_met_exactly(sizes: list[int], data: st.DataObject) -> None:
    num_keep = data.draw(st.integers(len(sizes), sum(sizes)))
    found = smart_ratio_counts(sizes, num_keep)
    assert sum(found) == num_keep
    assert all(1 <= count <= size for count, size in zip(found, sizes, strict=True))


def test_filling_by_hand() -> None:
    assert fill([Fraction(10), Fraction(1), Fraction(1)], [5, 10, 10], 9) == [5, 2, 2]
    assert fill([Fraction(1), Fraction(1), Fraction(1)], [9, 9, 9], 10) == [4, 3, 3]  # ties go to the earlier layer
    assert fill([Fraction(1), Fraction(2)], [10, 10], 9) == [3, 6]


@given(layers=st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 1000)), min_size=1, max_size=10), data=st.data())
def test_filling_solves_its_equation(layers: list[tuple[int, int]], data: st.DataObject) -> None:
    demands, capacities = [Fraction(demand) for demand, _ in layers], [capacity for _, capacity in layers]
    total = data.draw(st.integers(len(layers), sum(capacities)))
    found = fill(demands, capacities, total)
    assert sum(found) == total
    assert all(1 <= count <= capacity for count, capacity in zip(found, capacities, strict=True))
    exact = _water_level(demands, capacities, total)
    if min(exact) >= 1:  # then nobody was given a weight of another's
        assert all(abs(count - share) < 1 for count, share in zip(found, exact, strict=True))


def _water_level(demands: list[Fraction], capacities: list[int], total: int) -> list[float]:
    """Solve sum min(capacity, level * demand) = total by bisection, another way than the code's."""

    def shares(level: float) -> list[float]:
        return [min(capacity, level * float(demand)) for demand, capacity in zip(demands, capacities, strict=True)]

    low, high = 0.0, max(capacity / float(demand) for demand, capacity in zip(demands, capacities, strict=True))
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(shares(middle)) < total else (low, middle)
    return shares(high)
