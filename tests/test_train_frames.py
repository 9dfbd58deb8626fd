"""Training on single frames, without velocities or a time step, and on labels of different origin."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small import example
from test_train import train_here

from dtmd.errors import DtmdError
from dtmd.store import read_store, write_store
from dtmd.trajectory import Trajectory

FRAMES = {"lengths": [1], "max_epochs": 2, "validation_length": 1}


def picked(trajectory: Trajectory, frames: list[int], **changes) -> Trajectory:
    """Some frames, unevenly spaced and without velocities."""
    per_frame = ("cells", "times", "positions", "forces", "energies")
    chosen = {name: np.array(getattr(trajectory, name)[frames]) for name in per_frame}
    return replace(trajectory, velocities=None, **(chosen | changes))


def stores(folder, training: list[Trajectory], validation: list[Trajectory]) -> dict:
    """The data section for them."""
    for name, trajectories in (("train", training), ("validation", validation)):
        write_store(folder / f"{name}.h5", trajectories)
    return {"train": [str(folder / "train.h5")], "validation": [str(folder / "validation.h5")]}


@pytest.fixture
def frames() -> tuple[list[Trajectory], list[Trajectory]]:
    first, second, *_ = example()
    return [picked(first, [0, 3, 4, 11, 60, 61])], [picked(second, [5, 50, 51])]


def test_frames_without_velocities_and_time_step_train_at_length_one(tmp_path, frames, caplog):
    with caplog.at_level("INFO", "dtmd"):
        train_here(tmp_path, tmp_path / "run", data=stores(tmp_path, *frames), curriculum=FRAMES)
    assert "frames are not followed in time" in caplog.text
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    judged = records[-1]["validation"]
    assert judged["mepa"] == pytest.approx(judged["first_frame"]) == pytest.approx(sum(judged["by_species"].values()))
    assert "frames are not followed in time" in (tmp_path / "run" / "summary.html").read_text()


@pytest.mark.parametrize("curriculum", [FRAMES | {"lengths": [1, 2], "max_epochs": 1},
                                        FRAMES | {"validation_length": 2}])
def test_rollouts_need_velocities(tmp_path, frames, curriculum):
    with pytest.raises(DtmdError, match="no velocities; training needs them"):
        train_here(tmp_path, tmp_path / "run", data=stores(tmp_path, *frames), curriculum=curriculum)


def test_labels_of_different_origin_are_not_mixed_unless_meant(tmp_path, frames):
    training, validation = frames
    by_teacher = picked(example()[0], [7, 8], times=np.array([0.0, 5.0]))
    origin = replace(by_teacher.origin, labels="teacher ab12", run="more")
    by_teacher = replace(by_teacher, source="more", origin=origin)
    data = stores(tmp_path, [*training, by_teacher], validation)
    assert read_store(tmp_path / "train.h5")[1].origin.labels == "teacher ab12"
    with pytest.raises(DtmdError, match="different origin: AIMD in .*; teacher ab12 in .*more.*mixed_labels"):
        train_here(tmp_path, tmp_path / "run", data=data, curriculum=FRAMES)
    train_here(tmp_path, tmp_path / "run", data=data | {"mixed_labels": True}, curriculum=FRAMES)
    assert (tmp_path / "run" / "model.pt").exists()
