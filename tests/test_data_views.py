"""Views of the data: lifetime of neighbour sets, reference energies as text, splits by runs."""

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from matplotlib.image import imread
from small import example
from test_subsequences import segments, with_atoms

from dtmd.data_views import (
    by_atoms,
    draw_similarity,
    energies_text,
    energies_view,
    neighbor_similarity,
    similarity_text,
    split_runs,
    write_similarity_csv,
    write_split,
)
from dtmd.data_views import split as split_module
from dtmd.errors import DtmdError
from dtmd.store import read_store, write_store
from dtmd.trajectory import Trajectory


@pytest.fixture(scope="module")
def aimd():
    return example("train")


def sets_of(trajectory, frame, cutoff):
    """(neighbour, image) of each atom, from ASE's list."""
    atoms = Atoms(trajectory.numbers, trajectory.positions[frame], cell=trajectory.cells[frame], pbc=trajectory.pbc)
    sets = [set() for _ in atoms]
    for i, j, image in zip(*neighbor_list("ijS", atoms, cutoff), strict=True):
        sets[i].add((j, *image))
    return sets


def expected_similarity(trajectory, cutoff, starts, offset):
    total = 0.0
    for first in starts:
        pairs = zip(sets_of(trajectory, first, cutoff), sets_of(trajectory, first + offset, cutoff), strict=True)
        total = total + np.array([len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs])
    return total / len(starts)


def random_walk(cell: float, pbc, n_frames: int = 12, n_atoms: int = 6, seed: int = 0) -> Trajectory:
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, cell, (1, n_atoms, 3))
    return Trajectory(
        numbers=np.full(n_atoms, 18), masses=np.full(n_atoms, 40.0), pbc=np.array(pbc),
        cells=np.tile(cell * np.eye(3), (n_frames, 1, 1)), times=np.arange(float(n_frames)),
        positions=first + np.cumsum(rng.normal(scale=0.3, size=(n_frames, n_atoms, 3)), axis=0),
    )


@pytest.mark.parametrize(("cell", "pbc"), [(4.0, (True, True, True)), (9.0, (True, False, True)),
                                           (9.0, (False, False, False))])
def test_similarity_against_sets_of_ase(cell, pbc):
    """In the small cell an atom is its own neighbour and another one several times."""
    trajectory = random_walk(cell, pbc)
    found = neighbor_similarity([trajectory], cutoff=3.5, n_offsets=4)
    assert found.n_starts == 8 and found.jaccard.shape == (4, 6)
    for offset in (1, 4):
        expected = expected_similarity(trajectory, 3.5, range(8), offset)
        assert np.allclose(found.jaccard[offset - 1], expected)
        assert expected.min() < 0.9
    moves = [np.linalg.norm(trajectory.positions[t + k] - trajectory.positions[t], axis=1).max()
             for t in range(8) for k in (1, 2)]
    assert found.skins[1] == pytest.approx(2 * max(moves))


def test_real_neighbour_sets_last_as_in_the_article(aimd):
    found = neighbor_similarity(aimd[:3], cutoff=5.0, n_offsets=9, n_starts=60)
    assert found.n_starts == 60 and found.n_trajectories == 3 and found.elements == ["H", "C", "Pd"]
    lowest = {element: found.of_element(element)[8].min() for element in found.elements}
    assert 0.85 < lowest["H"] < lowest["C"] and lowest["C"] > 0.96 and lowest["Pd"] > 0.96
    assert np.all(np.diff(found.jaccard.mean(axis=1)) < 0) and np.all(np.diff(found.skins) > 0)
    assert 0 < found.missing[0] < found.missing[8] < 0.02
    lows = found.jaccard.min(axis=1)
    k = found.n_steps
    assert 1 < k < 9 and lows[k - 1] > 0.95 >= lows[k]
    text = similarity_text(found)
    assert f"may be kept for {k} frames ({0.5 * k:g} fs)" in text and "60 start frames of 3 trajectories" in text


def test_a_list_with_the_skin_misses_nothing(aimd):
    found = neighbor_similarity(aimd[:1], cutoff=4.0, n_offsets=6, n_starts=1000)
    trajectory = aimd[0]
    for first in (0, 100, 200):
        kept = sets_of(trajectory, first, 4.0 + found.skins[5])
        later = sets_of(trajectory, first + 6, 4.0)
        assert all(b <= a for a, b in zip(kept, later, strict=True))


def test_atoms_that_do_not_move_or_have_no_neighbours():
    still = random_walk(9.0, (True, True, True))
    still = dataclasses.replace(still, positions=np.tile(still.positions[:1], (12, 1, 1)))
    found = neighbor_similarity([still], 3.0, 5)
    assert np.all(found.jaccard == 1) and np.all(found.missing == 0) and found.n_steps == 5
    assert "more was not looked at" in similarity_text(found)
    alone = neighbor_similarity([random_walk(9.0, (False,) * 3)], 0.01, 5)
    assert np.all(alone.jaccard == 1) and np.all(alone.missing == 0)
    fast = dataclasses.replace(still, positions=9 * np.random.default_rng(1).random((12, 6, 3)))
    hopeless = neighbor_similarity([fast], 3.0, 5)
    assert hopeless.n_steps == 0 and "at every frame" in similarity_text(hopeless)


def test_other_atoms_and_short_trajectories_are_named(aimd):
    small = with_atoms(aimd[0], 20)
    with pytest.raises(DtmdError, match="run 20: has other atoms than"):
        neighbor_similarity([aimd[0], small], 4.0)
    assert by_atoms([aimd[0], small, aimd[1]]) == [[aimd[0], aimd[1]], [small]]
    with pytest.raises(DtmdError, match="no trajectory has more than 10 frames"):
        neighbor_similarity([small.window(0, 10)], 4.0)


def test_figure_and_table_of_the_similarity(aimd, tmp_path):
    found = neighbor_similarity(aimd[:1], 5.0, 12, 20)
    for suffix in (".png", ".svg", ".pdf"):
        draw_similarity(found, tmp_path / f"figure{suffix}")
    pixels = imread(tmp_path / "figure.png")
    assert pixels.shape[1] == 1200 and len(np.unique(pixels.reshape(-1, 4), axis=0)) > 20
    assert "Jaccard similarity" in (tmp_path / "figure.svg").read_text()
    with pytest.raises(DtmdError, match="figure.bmp: unknown kind of figure; end the name in .png"):
        draw_similarity(found, tmp_path / "figure.bmp")
    write_similarity_csv(found, tmp_path / "similarity.csv")
    header, *rows = (tmp_path / "similarity.csv").read_text().splitlines()
    assert header.startswith("atom,element,after_1,") and len(rows) == 57
    assert rows[51].startswith("52,Pd,") and rows[51].endswith(f",{found.jaccard[11, 51]:.6f}")


def test_reference_energies_as_text(aimd):
    text = energies_text(energies_view(aimd))
    assert text.count("not determined") == 3 and "do not determine H, C, Pd" in text
    # every run has the same atoms, so the residuals are those of the mean energies
    means = np.array([t.energies.mean() for t in aimd])
    assert f"{1000 * (means[0] - means.mean()) / 57:.3f}   {aimd[0].origin.run or aimd[0].source}" in text


def runs_of(aimd, n):
    """n runs of two segments each, of which no two frames are alike."""
    return [t for k in range(n) for t in segments(aimd[k % 7], (20 * (k // 7), 20 * (k // 7) + 8),
                                                  (20 * (k // 7) + 10, 20 * (k // 7) + 18), run=f"run {k:02d}")]


SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_runs_are_dealt_out_by_share_and_seed(aimd):
    trajectories = runs_of(aimd, 20)
    parts = split_runs(trajectories, SHARES, seed=1)
    assert [len(names) for names in parts.values()] == [16, 2, 2]
    assert sorted(sum(parts.values(), [])) == [f"run {k:02d}" for k in range(20)]
    assert split_runs(trajectories[::-1], SHARES, seed=1) == parts != split_runs(trajectories, SHARES, seed=2)
    assert [len(names) for names in split_runs(trajectories[:8], SHARES, 1).values()] == [2, 1, 1]
    with pytest.raises(DtmdError, match="2 runs cannot be split into train, validation, test"):
        split_runs(trajectories[:4], SHARES, 1)
    for shares in ({"train": 0.8, "test": 0.1}, {"train": 1.2, "test": -0.2}):
        with pytest.raises(DtmdError, match="must be positive and add up to 1"):
            split_runs(trajectories, shares, 1)


def test_a_split_is_written_as_stores(aimd, tmp_path):
    write_store(tmp_path / "data.h5", runs_of(aimd, 10))
    trajectories = read_store(tmp_path / "data.h5")
    written = write_split(trajectories, SHARES, 3, tmp_path / "data.h5")
    assert {name: path.name for name, (path, _) in written.items()} == {
        "train": "data.train.h5", "validation": "data.validation.h5", "test": "data.test.h5"}
    back = {name: read_store(path) for name, (path, _) in written.items()}
    for name, (_, runs) in written.items():
        assert sorted({t.origin.run for t in back[name]}) == runs and len(back[name]) == 2 * len(runs)
    names = sorted(t.source.split(":")[1] for part in back.values() for t in part)
    assert names == sorted(t.source.split(":")[1] for t in trajectories)
    with pytest.raises(DtmdError, match="data.train.h5: is there already"):
        write_split(trajectories, SHARES, 4, tmp_path / "data.h5")


def test_a_split_that_fails_leaves_nothing(aimd, tmp_path, monkeypatch):
    def write_two(path, trajectories, append):
        if "test" in path.name:
            raise DtmdError(f"{path}: disk full")
        return write_store(path, trajectories, append)

    monkeypatch.setattr(split_module, "write_store", write_two)
    with pytest.raises(DtmdError, match="disk full"):
        write_split(runs_of(aimd, 5), SHARES, 3, tmp_path / "data.h5")
    assert list(tmp_path.iterdir()) == []
