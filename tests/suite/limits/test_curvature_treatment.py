import pytest

from suite.curvature.quadrature import atoms
from suite.limits.curvature_treatment import treated


@pytest.mark.parametrize(("curvature", "expected"), [("abs", [2.0, 0.0, 3.0]), ("positive", [0.0, 0.0, 3.0])])
def test_nodes_move_and_masses_stay(curvature, expected):
    rule = treated(atoms([-2.0, 0.0, 3.0], [0.5, 0.25, 0.25]), curvature).quadratures[0]
    assert rule.nodes.tolist() == expected
    assert rule.quadrature_weights.tolist() == [0.5, 0.25, 0.25]


def test_other_treatments_are_refused():
    with pytest.raises(ValueError, match=r"No curvature treatment named 'drop'\. Known: abs, positive\."):
        treated(atoms([1.0]), "drop")
