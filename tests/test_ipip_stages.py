"""A stage is done once, goes on where it was interrupted, and is never made from two things."""

import pytest

from dtmd.errors import DtmdError
from dtmd.ipip.stages import Stage, forget_from, read_state


def stage(root, settings=None, inputs=(), outputs=("out.txt",), name="round_1/probe") -> Stage:
    return Stage(root, name, settings or {"md": {"time": "1ps"}}, inputs, outputs)


def writing(text="done"):
    """Work that leaves its output, and counts how often it was called."""
    calls = []

    def work(folder):
        calls.append(folder)
        (folder / "out.txt").write_text(text)
        return {"frames": len(calls)}

    return work, calls


def test_a_stage_is_done_once_and_its_facts_are_kept(tmp_path):
    work, calls = writing()
    facts = stage(tmp_path).run(work)
    assert facts["frames"] == 1 and facts["seconds"] >= 0.0
    assert stage(tmp_path).run(work) == facts and len(calls) == 1
    state = read_state(tmp_path / "round_1" / "probe")
    assert state["state"] == "done" and state["made_from"] == {"settings": {"md": {"time": "1ps"}}, "files": {}}


def test_a_stage_without_its_output_is_done_again(tmp_path):
    work, calls = writing()
    stage(tmp_path).run(work)
    stage(tmp_path).output("out.txt").unlink()
    (stage(tmp_path).folder / "left").touch()
    assert stage(tmp_path).run(work)["frames"] == 2 and not (stage(tmp_path).folder / "left").exists()


def test_an_input_that_is_gone_is_told(tmp_path):
    with pytest.raises(DtmdError, match="old.h5: is missing, and round_1/probe is made from it.*--redo"):
        stage(tmp_path, inputs=[tmp_path / "old.h5"]).run(writing()[0])


def test_an_interrupted_stage_goes_on_with_what_it_left(tmp_path):
    def interrupted(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path).run(interrupted)
    assert read_state(stage(tmp_path).folder)["state"] == "running"
    work, _ = writing()
    assert stage(tmp_path).run(work)["frames"] == 1
    assert (stage(tmp_path).folder / "half").exists()


def test_what_a_stage_was_made_from_may_not_change(tmp_path):
    source = tmp_path / "model.pt"
    source.write_text("one")
    work, _ = writing()
    stage(tmp_path, inputs=[source]).run(work)
    with pytest.raises(DtmdError, match=r"probe: was made from something else: md.time was 1ps, now 2ps. .*"
                                        r"--redo round_1/probe"):
        stage(tmp_path, {"md": {"time": "2ps"}}, [source]).run(work)
    source.write_text("two")
    with pytest.raises(DtmdError, match="the file model.pt has changed"):
        stage(tmp_path, inputs=[source]).run(work)
    with pytest.raises(DtmdError, match="files were model.pt, now they are other.pt"):
        (tmp_path / "other.pt").write_text("two")
        stage(tmp_path, inputs=[tmp_path / "other.pt"]).run(work)


def test_a_stage_that_failed_begins_anew_with_what_was_mended(tmp_path):
    def failing(folder):
        (folder / "left").touch()
        raise DtmdError("no such teacher")

    with pytest.raises(DtmdError, match="no such teacher"):
        stage(tmp_path).run(failing)
    assert read_state(stage(tmp_path).folder)["state"] == "failed"
    assert stage(tmp_path, {"md": {"time": "2ps"}}).run(writing()[0])["frames"] == 1
    assert not (stage(tmp_path).folder / "left").exists()


def test_a_stage_and_what_follows_it_are_forgotten(tmp_path):
    order = ["teacher", "round_1/explore", "round_1/pretrain", "round_2/pretrain"]
    for name in order:
        stage(tmp_path, name=name).run(writing()[0])
    assert forget_from(tmp_path, "round_1/pretrain", order) == order[2:]
    assert (tmp_path / "round_1/explore/state.json").exists() and not (tmp_path / "round_1/pretrain").exists()
    with pytest.raises(DtmdError, match="--redo round_1/pretrian: no such stage in .*; there are: teacher, round_1/"):
        forget_from(tmp_path, "round_1/pretrian", order)


def test_a_damaged_state_is_told(tmp_path):
    stage(tmp_path).run(writing()[0])
    path = stage(tmp_path).folder / "state.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(DtmdError, match="state.json: damaged .*remove the folder"):
        stage(tmp_path).run(writing()[0])
