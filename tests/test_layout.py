"""Data flows one way: a module imports only from the lines above its own."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dtmd"

LAYERS = """
errors units resources pieces
children files yaml_files trajectory memory factories
presentation neighbor_sets
models store launcher
structures config
ingest artefact mliap
md
ingestion
neighbors potential ranks
mace_file compilation
rollout losses aotinductor
subsequences curriculum
checkpoint validation display
training_data filter_tables
training_report
run_folder data_views
train export calculator
named_calculators
analysis
export_mliap plugin
lmp
lammps info
agreement
doctor other_lammps
observables
comparison_report evaluation ensemble
comparison
crashtest
ipip
cli
__main__
"""

RANK = {module: rank for rank, line in enumerate(LAYERS.split("\n")) for module in line.split()}
LIGHT = ("plugin", "resources", "errors", "units", "files", "yaml_files", "trajectory", "store", "ingest", "md",
         "ingestion", "observables", "comparison", "comparison_report", "presentation", "launcher", "lmp", "children")


def imports(path: Path) -> set[str]:
    """First-level names below dtmd, and other packages, that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "dtmd":
            names |= {f"dtmd.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = module_of(path)
    inner = {name.split(".")[1] for name in imports(path) if name.startswith("dtmd.")} - {own}
    above = {name for name in inner if RANK[name] >= RANK[own]}
    assert not above, f"{own} imports {above}"


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p) in LIGHT], ids=lambda p: p.stem)
def test_what_runs_often_does_not_load_torch_at_import(path):
    top_level = {name for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import) for name in
                 (alias.name for alias in node.names)}
    assert "torch" not in top_level
