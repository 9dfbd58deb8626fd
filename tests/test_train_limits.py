"""Where a training ends, breaks down or is refused: budgets, memory, data that contradict the config."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import example
from test_train import CONFIG, dtmd, train_here, write_config

from dtmd.checkpoint import load_model, load_tensors
from dtmd.errors import DtmdError
from dtmd.store import write_store
from dtmd.train import Trainer
from dtmd.trajectory import Origin

TINY = {"precision": "float32", "data": CONFIG["data"] | {"stride": 40}}
S1 = {"lengths": [1], "max_epochs": 3, "validation_length": 3}


def train_in(folder, **changes):
    """Train or continue in folder/run with the config changed."""
    return train_here(folder, folder / "run", **(TINY | changes))


def records_of(folder):
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def test_updates_run_out_within_an_epoch_and_more_go_on_from_there(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "dtmd"):
        train_in(tmp_path, curriculum=S1 | {"max_updates": 6})
    assert "the training is over: curriculum.max_updates 6 is reached; 6 updates in" in caplog.text
    assert len(records_of(tmp_path)) == 2  # the second epoch is validated although it has two of four updates only
    train_in(tmp_path, curriculum=S1 | {"max_updates": 6})
    assert load_tensors(tmp_path / "run" / "checkpoint.pt")["updates"] == 6
    with caplog.at_level(logging.INFO, "dtmd"):
        train_in(tmp_path, curriculum=S1 | {"max_updates": 50})
    assert load_tensors(tmp_path / "run" / "checkpoint.pt")["updates"] == 10
    assert "curriculum.max_updates: 50 (was 6)" in caplog.text and "the last stage is over" in caplog.text


def test_hours_count_over_interruptions(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "dtmd"):
        train_in(tmp_path, curriculum=S1 | {"max_hours": 1e-9})
    assert "curriculum.max_hours 1e-09 is reached; 1 updates" in caplog.text
    assert load_model(tmp_path / "run" / "model.pt").metadata["validation"]["epoch"] == 0
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    state = load_tensors(checkpoint)
    torch.save(state | {"seconds": 7200.0}, checkpoint)
    train_in(tmp_path, curriculum=S1 | {"max_hours": 1.9})
    assert len(records_of(tmp_path)) == 1


def test_stages_that_do_not_help_end_the_training(tmp_path, caplog):
    still = dict.fromkeys(("learning_rate", "reset_learning_rate", "minimum_learning_rate"), 1e-15)
    curriculum = {"lengths": [1, 1, 2, 3], "max_epochs": 1, "validation_length": 3, "stop_after": 2, **still}
    with caplog.at_level(logging.INFO, "dtmd"):
        train_in(tmp_path, curriculum=curriculum | {"improvement": 0.01})
    assert [record["S"] for record in records_of(tmp_path)] == [1, 1, 2]
    assert "2 stages in a row gained less than 0.01" in caplog.text


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to …"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["gpu", "cpu"])
def test_a_batch_that_does_not_fit_goes_on_in_more_parts(tmp_path, monkeypatch, error):
    curriculum = {"lengths": [1, 2], "max_epochs": 1, "validation_length": 3}
    accumulate = Trainer._accumulate

    def small_memory(trainer, points, share):
        if trainer.length == 2 and len(points.names) > 2:
            raise error
        return accumulate(trainer, points, share)

    monkeypatch.setattr(Trainer, "_accumulate", small_memory)
    with pytest.raises(DtmdError, match="not enough memory at S = 2, epoch 1, batch 0: optimizer.batch_size 4 in 1 "
                       r"parts. The last checkpoint is kept; set optimizer.accumulate to 2, up to 4") as caught:
        train_in(tmp_path, curriculum=curriculum, optimizer={"batch_size": 4})
    assert str(error)[:40] in str(caught.value)
    records, _ = train_in(tmp_path, curriculum=curriculum, optimizer={"batch_size": 4, "accumulate": 2})
    assert [record["S"] for record in records] == [1, 2]


def test_a_validation_that_does_not_fit_names_its_setting(tmp_path, monkeypatch):
    def no_memory(*_):
        raise OUT_OF_MEMORY[0]

    with monkeypatch.context() as patched, pytest.raises(DtmdError, match=(
            "the validation after S = 1, epoch 0, .* 8 rollouts side by side.*validation_batch_size to 4 or less")):
        patched.setattr("dtmd.train.validate", no_memory)
        train_in(tmp_path, curriculum=S1, optimizer={"batch_size": 4, "validation_batch_size": 8})
    train_in(tmp_path, curriculum=S1, optimizer={"batch_size": 4, "validation_batch_size": 4})
    assert len(records_of(tmp_path)) == 3


def test_a_break_down_leaves_what_the_message_says_to_go_on_from(tmp_path):
    curriculum = {"lengths": [1, 2], "max_epochs": [1, 3], "validation_length": 3, "reset_learning_rate": 1e30}
    with pytest.raises(DtmdError, match=r"broke down at S = 2, epoch 1, .* frame \d+.* start_from: \S*run/model.pt, "
                                        r"with lower learning rates than the 1e\+30"):
        train_in(tmp_path, curriculum=curriculum)
    assert all(torch.isfinite(value).all() for value in
               load_tensors(tmp_path / "run" / "checkpoint.pt")["weights"].values())
    records, _ = train_here(tmp_path, tmp_path / "again", **TINY, start_from=str(tmp_path / "run" / "model.pt"),
                            curriculum=curriculum | {"learning_rate": 1e-4, "reset_learning_rate": 1e-4})
    assert [record["S"] for record in records] == [1, 2, 2, 2]


def stored(folder, **changes):
    """A store with the first trajectory of the tests changed."""
    trajectory = replace(example()[0], source="changed", origin=Origin(run="changed"), **changes)
    write_store(folder / "changed.h5", [trajectory])
    return str(folder / "changed.h5")


def test_runs_of_different_time_steps_are_refused_unless_meant(tmp_path, caplog):
    slow = stored(tmp_path, times=2.0 * example()[0].times)
    data = CONFIG["data"] | {"train": [*CONFIG["data"]["train"], slow]}
    with pytest.raises(DtmdError, match="different Δt: 0.5 fs in .*; 1 fs in .*changed.*data.mixed_timesteps: true"):
        train_in(tmp_path, data=data)
    with caplog.at_level(logging.INFO, "dtmd"):
        train_in(tmp_path, data=data | {"mixed_timesteps": True, "stride": 100},
                 curriculum=S1 | {"lengths": [2], "max_epochs": 1})
    assert "Δt 0.5, 1 fs" in caplog.text


def test_an_element_of_the_validation_only(tmp_path):
    numbers = np.where(example()[0].numbers == 46, 28, example()[0].numbers)
    with pytest.raises(DtmdError, match="changed: the potential does not know Ni, only H, C, Pd"):
        train_in(tmp_path, data=CONFIG["data"] | {"validation": [stored(tmp_path, numbers=numbers)]})


@pytest.mark.parametrize(("changes", "message"), [
    ({"curriculum": S1 | {"validation_length": 400}},
     "h2pd6_102.*320 frames, subsequences of 400 .*; lower curriculum.validation_length or"),
    ({"curriculum": S1 | {"lengths": [1, 400]}}, "frames, subsequences of 400 .*; lower curriculum.lengths or"),
    ({"data": CONFIG["data"] | {"stride": 5000}}, "data.stride 5000 is more than the 320 frames of the longest"),
    ({"model": CONFIG["model"] | {"cutoff": 0.3}}, "model.cutoff 0.3 Å: no two atoms of the data are so near"),
], ids=["S_val", "S", "stride", "cutoff"])
def test_configs_that_contradict_the_data_name_the_key(tmp_path, changes, message):
    with pytest.raises(DtmdError, match=message):
        train_in(tmp_path, **changes)


def test_fewer_validation_rollouts_than_asked_for_are_told(tmp_path, caplog):
    data = TINY["data"] | {"validation_points": 100}
    with caplog.at_level(logging.INFO, "dtmd"):
        train_in(tmp_path, data=data, curriculum=S1 | {"max_epochs": 1, "validation_length": 300})
    assert "21 validation rollouts" in caplog.text and "data.validation_points asks for 100" in caplog.text


def test_aimd_without_a_config(tmp_path):
    result = dtmd("train", CONFIG["data"]["train"][0], "--preset", "small", "-o", tmp_path / "run")
    assert result.returncode == 2 and "a single trajectory" in result.stderr
    assert "reading 1 runs of AIMD" in result.stdout
    result = dtmd("train", write_config(tmp_path), "--preset", "small")
    assert result.returncode == 2 and "a config stands alone" in result.stderr
