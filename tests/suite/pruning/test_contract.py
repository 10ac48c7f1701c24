from types import ModuleType

from suite.pruning.contract import method_variants, previous_num_kept, rewind_step
from suite.pruning.methods import dense, imp, lomp, random


def test_a_method_without_variants_is_one_row() -> None:
    (row,) = method_variants(random, "random", random.Options())
    assert (row.row, row.label, row.options) == ("random", "Random", random.Options())


def test_a_method_with_variants_names_its_rows() -> None:
    assert [row.row for row in method_variants(lomp, "lomp", lomp.Options())] == ["lomp", "lomp_fine_tuned"]


def test_what_a_method_does_not_say_is_none() -> None:
    assert rewind_step(dense, dense.Options()) is None
    assert previous_num_kept(dense, dense.Options(), 100, 10) is None


def test_what_a_method_says_is_asked_for() -> None:
    assert rewind_step(imp, imp.Options(rewind_step=7)) == 7
    assert previous_num_kept(imp, imp.Options(), 100, 64) == 80


def test_the_functions_are_looked_up_by_name() -> None:
    module = ModuleType("method")
    module.rewind_step = lambda options: options + 1  # type: ignore[attr-defined]
    module.previous_num_kept = lambda options, total, kept: options + total + kept  # type: ignore[attr-defined]
    assert rewind_step(module, 4) == 5  # type: ignore[arg-type]
    assert previous_num_kept(module, 1, 20, 300) == 321  # type: ignore[arg-type]
