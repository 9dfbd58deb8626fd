"""The benchmark of LAMMPS: its turns are real runs on the system that they say, its ratios those of the turns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dtmd.models import EGNNConfig

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import bench_lammps  # noqa: E402


@pytest.fixture
def small_arms(monkeypatch):
    """The arms with a narrow EGNN."""
    small = EGNNConfig(width=8, n_layers=2, n_frequencies=4)
    arms = {key: bench_lammps.Arm(arm.name, small, arm.export) for key, arm in bench_lammps.ARMS.items()}
    monkeypatch.setattr(bench_lammps, "ARMS", arms)


def test_turns_in_lammps_and_ase(plugin, small_arms, tmp_path):
    list(bench_lammps.prepare(tmp_path, ["b", "d"]))
    for arm, n_atoms, ranks in (("b", 57, 1), ("b", 2_052, 2), ("d", 57, 1)):
        (turn,) = bench_lammps.measured(tmp_path, n_atoms, arm, ranks, 1, "cpu")
        assert turn.steps > 0 and turn.ms > 0 and turn.cpu_ms > 0 and turn.peak_MB > 50
        if arm == "b":
            assert f"{turn.steps} steps with {n_atoms} atoms" in (tmp_path / "lmp.out").read_text()
            assert 0 <= turn.neighbours < turn.pair <= 100
    assert bench_lammps.medians([turn], 57)["pair"] is None


def test_what_a_turn_says_is_what_lammps_printed():
    printed = """Loop time of 9 on 1 procs for 2 steps with 57 atoms
99.0% CPU use with 1 MPI tasks x 1 OpenMP threads
Loop time of 5.0 on 1 procs for 1000 steps with 57 atoms

Performance: 8.640 ns/day, 2.778 hours/ns, 200.000 timesteps/s, 11.400 katom-step/s
98.0% CPU use with 1 MPI tasks x 1 OpenMP threads

MPI task timing breakdown:
Section |  min time  |  avg time  |  max time  |%varavg| %total
---------------------------------------------------------------
Pair    | 4.9        | 4.9        | 4.9        |   0.0 | 98.00
Neigh   | 0.05       | 0.05       | 0.05       |   0.0 |  1.00
"""
    turn = bench_lammps.read_timings(printed, 300)
    assert turn == bench_lammps.Turn(ms=5.0, cpu_ms=4.9, steps=1000, pair=98.0, neighbours=1.0, peak_MB=300)


def test_the_summary():
    def row(arm, atoms, ms, ranks=1):
        return {"arm": arm, "atoms": atoms, "ranks": ranks, "ms": ms, "cpu_ms": 2 * ms, "pair": 99.0,
                "us_per_atom": 1e3 * ms / atoms}

    rows = [row("a", 57, 30.0), row("c", 57, 10.0), row("c", 2_052, 400.0), row("c", 2_052, 250.0, ranks=2),
            row("c", 20_520, 4400.0), {"arm": "a", "atoms": 20_520, "ranks": 1, "out_of_memory": True}]
    found = bench_lammps.summary(rows)
    assert found["c over a, 57 atoms"] == {"wall": 3.0, "cpu": 3.0}
    assert found["efficiency of c on 2 ranks, 2052 atoms"] == 0.8
    assert found["cost per atom of c from 2,000 atoms on, largest over smallest"] == 1.1
    assert found["least share of pair, %"] == 99.0


@pytest.mark.slow
def test_the_quick_benchmark_writes_its_figures(plugin, tmp_path):
    subprocess.run([sys.executable, ROOT / "tools" / "bench_lammps.py", "--quick", "--json", tmp_path / "f.json"],
                   check=True)
    figures = json.loads((tmp_path / "f.json").read_text())
    assert {(row["arm"], row["atoms"]) for row in figures["rows"]} >= {("a", 57), ("d", 57), ("e", 57), ("b", 2_052)}
    assert all(row["ms"] > 0 for row in figures["rows"])
