"""Who may import whom. Outer rooms know inner ones, never the reverse; this walks every module's syntax tree."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("data", "suite", "launchers", "reports", "espalier")
OURS = (*ROOMS, "tests")

# Room -> prefixes of our own modules that it may import beside itself.
ALLOWED = {
    "data": (),
    "suite": ("data.hdf5",),
    "suite.datasets": ("data",),
    "launchers": ("suite", "data"),
    "reports": (
        "suite.study",
        "suite.store",
        "suite.record",
        "suite.curvature.quadrature",
        "suite.extensions",
        "suite.errors",
        "data.hdf5",
    ),
    "espalier": ("data", "suite", "launchers", "reports"),
}
# From the innermost out: each may import those before it.
LAYERS = ("suite.curvature", "suite.limits", "suite.networks", "suite.measure", "suite.estimate", "suite.cells")
LAZY = ("ray", "submitit", "altair")  # imported inside the function that needs them
VAGUE = ("utils", "util", "helpers", "helper", "common", "misc", "tools")


class Import(NamedTuple):
    """One imported module, as an absolute name, and whether the statement runs when its file is imported."""

    module: str
    line: int
    at_import: bool


@cache
def modules() -> dict[str, Path]:
    """Return every module of the project by its dotted name."""
    found: dict[str, Path] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Yield the imports of a module's source, those inside functions and under TYPE_CHECKING included."""
    package = module if is_package else module.rpartition(".")[0]

    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (Import(_imported(base, alias.name), node.lineno, at_import) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _for_types_only(node)
            yield from walk(child, at_import and not inside)

    yield from walk(ast.parse(source), True)


def _imported(base: str, name: str) -> str:
    """Return base.name when that is a module of ours, else base."""
    full = f"{base}.{name}"
    return full if full in modules() else base


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def room_of(module: str) -> str:
    return module if module in ALLOWED else module.partition(".")[0]


def layer_of(module: str) -> int | None:
    """Return the place of a module's package in LAYERS; None: it is in none of them."""
    return next((place for place, package in enumerate(LAYERS) if _within(module, (package,))), None)


def forbidden(module: str, imported: str) -> bool:
    """Return whether a module of ours may not import another one of ours."""
    if not _within(imported, OURS):
        return False
    own, layer, other = module.partition(".")[0], layer_of(module), layer_of(imported)
    if layer is not None and other is not None and other > layer:
        return True
    return not _within(imported, (own, *ALLOWED[room_of(module)]))


@cache
def _parsed(module: str) -> list[Import]:
    path = modules()[module]
    return list(imports(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py"))


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_inner_rooms(module: str) -> None:
    found = [
        f"{module}:{each.line} imports {each.module}" for each in _parsed(module) if forbidden(module, each.module)
    ]
    assert found == []


@pytest.mark.parametrize("module", modules())
def test_heavy_libraries_are_imported_where_they_are_needed(module: str) -> None:
    lazy = tuple(name for name in LAZY if not (name == "altair" and _within(module, ("reports",))))
    found = [f"{module}:{each.line} imports {each.module}" for each in _parsed(module) if each.at_import]
    assert [line for line in found if _within(line.rpartition(" ")[2], lazy)] == []


@pytest.mark.parametrize("module", [name for name in modules() if _within(name, ("data", "reports"))])
def test_torch_is_the_business_of_suite_and_launchers(module: str) -> None:
    assert [each.line for each in _parsed(module) if _within(each.module, ("torch",))] == []


def test_nothing_is_called_after_nothing() -> None:
    assert [name for name in modules() if name.rpartition(".")[2].strip("_") in VAGUE] == []


def loaded_after_importing(names: list[str]) -> set[str]:
    """Return the top-level packages in a fresh interpreter after importing these modules."""
    lines = [f"import {name}" for name in names] + [
        "import sys",
        "print(*{name.partition('.')[0] for name in sys.modules})",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_report_is_written_without_torch() -> None:
    names = [name for name in modules() if _within(name, ("reports",))]
    assert loaded_after_importing(names) & {"torch", "ray", "submitit", "launchers", "espalier"} == set()


def test_reading_data_needs_no_room_of_ours() -> None:
    names = [name for name in modules() if _within(name, ("data",))]
    assert loaded_after_importing(names) & {"torch", "suite", "launchers", "reports", "espalier"} == set()


def test_suite_and_launchers_load_no_scheduler() -> None:
    names = [name for name in modules() if _within(name, ("suite", "launchers"))]
    assert loaded_after_importing(names) & {"ray", "submitit", "altair", "reports", "espalier"} == set()


def test_the_command_line_answers_before_it_loads_torch() -> None:
    assert (
        loaded_after_importing(
            [name for name in modules() if _within(name, ("espalier",)) and name != "espalier.__main__"]
        )
        & {"torch", "ray", "altair", "pandas"}
        == set()
    )


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("data.digits", "import suite.record", True),
        ("data.digits", "from data.hdf5 import refusal", False),
        ("suite.plan", "import data", True),
        ("suite.plan", "def f():\n    from data import ensure", True),
        ("suite.plan", "from data.hdf5 import commit_bytes", False),
        ("suite.plan", "from data import hdf5", False),
        ("suite.datasets", "import data", False),
        ("suite.cells.dense", "import data", True),
        ("suite.cells._search", "from suite.measure import tolerance", False),
        ("suite.measure.tolerance", "from suite.cells._context import Context", True),
        ("suite.measure", "from suite.networks.loaded import Network", False),
        ("suite.networks.loaded", "import suite.measure", True),
        ("suite.limits.predict", "from suite.limits import removal", False),
        ("suite.limits.predict", "def f():\n    from suite.networks import loaded", True),
        ("suite.curvature.slq", "from suite.limits import removal", True),
        ("suite.curvature.slq", "from suite.splits import Split", False),
        ("suite.cells.dense", "import launchers.inline", True),
        ("launchers.inline", "from suite import plan", False),
        ("launchers.inline", "import reports", True),
        ("reports.write", "from suite.plan import Plan", True),
        ("reports.write", "from suite import plan", True),
        ("reports.write", "from suite import record", False),
        ("reports.write", "import suite.recorder", True),
        ("suite.plan", "import espalier", True),
        ("suite.plan", "from .store import Store", False),
        ("suite.cells.dense", "from ... import launchers", True),
        ("espalier", "import reports.write", False),
    ],
)
def test_the_rules_themselves(module: str, line: str, wrong: bool) -> None:
    if "..." in line:
        with pytest.raises(ImportError):  # beyond the top: no room is inside another
            list(imports(line, module))
        return
    assert any(forbidden(module, each.module) for each in imports(line, module)) == wrong


def test_what_runs_at_import_is_told_from_what_does_not() -> None:
    source = "import ray\nif TYPE_CHECKING:\n    import ray\ndef f():\n    import ray\nclass A:\n    import ray\n"
    assert [(each.line, each.at_import) for each in imports(source, "suite.plan")] == [
        (1, True),
        (3, False),
        (5, False),
        (7, True),
    ]
