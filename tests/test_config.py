"""The strict config."""

from pathlib import Path

import pytest

from dtmd.config import dump_config, load_config
from dtmd.errors import DtmdError


def write(tmp_path, text) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_the_embedded_example_and_round_trip(tmp_path):
    config = load_config(None)
    assert config.name == "h2pd6" and all(p.is_dir() for p in config.data.train)
    assert load_config(write(tmp_path, dump_config(config))) == config


def test_defaults_are_the_article(tmp_path):
    config = load_config(write(tmp_path, "data: {train: [aimd]}"))
    assert config.name == "mine"
    assert config.data.train == [tmp_path / "aimd"]
    assert config.curriculum.lengths == list(range(1, 12))
    assert (config.curriculum.patience, config.curriculum.decay) == (15, 0.33)
    assert (config.loss.kind, config.loss.first_weight, config.loss.step_decay) == ("mepa", 50.0, 1.0)
    assert (config.loss.energy, config.loss.energy_weight, config.loss.species_weights) == ("first", 1.0, {})
    assert (config.model.width, config.model.n_frequencies, config.model.cutoff) == (128, 256, 5.0)


@pytest.mark.parametrize(("bptt", "cut_every"), [("full", None), ("none", 1), (1, 1), (7, 7)])
def test_truncation(tmp_path, bptt, cut_every):
    rollout = load_config(write(tmp_path, f"data: {{train: [aimd]}}\nrollout: {{bptt: {bptt}}}")).rollout
    assert rollout.bptt == bptt and rollout.cut_every == cut_every


def test_the_model_to_start_from_is_relative_to_the_file(tmp_path):
    config = load_config(write(tmp_path, "data: {train: [aimd]}\nstart_from: ../old/model.pt"))
    assert config.start_from == tmp_path / "../old/model.pt"
    assert load_config(write(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize(("text", "message"), [
    ("data: {train: [a]}\nmodle: {}", r"unknown key modle; did you mean model\?"),
    ("data: {train: [a], strid: 2}", r"unknown key data.strid; did you mean stride\?"),
    ("data: {train: [a]}\nmodel: {widht: 3}", r"unknown key model.widht; did you mean width\?"),
    ("data: {train: [a]}\noptimizer: {batch_size: 0}", r"optimizer.batch_size: .*or equal to 1 \(found 0\)"),
    ("data: {train: []}", "data.train"),
    ("model: {width: 3}", "data: Field required"),
    ("data: {train: [a]}\ncurriculum: {lengths: [1, 3, 2]}", "must not decrease"),
    ("data: {train: [a]}\ncurriculum: {lengths: [1, 2], max_epochs: [5]}", "1 entries for 2 lengths"),
    ("data: {train: [a]}\ncurriculum: {minimum_learning_rate: 0.1}", "above the learning rates"),
    ("data: {train: [a]}\nmodel: {architecture: egnn, widht: 3}", r"unknown key model.widht; did you mean width\?"),
    ("data: {train: [a]}\nrollout: {bptt: 0}", r"rollout.bptt: .*full, none or a number of steps.*\(found 0\)"),
    ("data: {train: [a]}\nrollout: {bptt: 2.5}", r"^\S+mine.yaml: rollout.bptt: [^\n]*$"),
    ("data: {train: [a]}\nrollout: {bptt: true}", "rollout.bptt: .*found True"),
    ("data: {train: [a]}\nrollout: {neighbors_every: 2}", "neighbors_every is for neighbors: aimd"),
    ("data: {train: [a]}\nrollout: {neighbors: aimd}\nmodel: {envelope: none}", "set model.n_knots to 0"),
    ("data: {train: [a]}\noptimizer: {accumulate: 3, batch_size: 2}", "3 makes more parts than batch_size 2"),
    ("data: {train: [a]}\nloss: {kind: mape}", "loss.kind: .*'mepa', 'mae' or 'mse' .found 'mape'"),
    ("data: {train: [a]}\nloss: {species_weights: {H: 0}}", r"loss.species_weights.H: .*greater than 0 \(found 0\)"),
    ("- a list", "a config is a mapping"),
    ("data: {train: [a", "not valid YAML"),
])
def test_bad_configs_name_file_and_key(tmp_path, text, message):
    with pytest.raises(DtmdError, match=message) as caught:
        load_config(write(tmp_path, text))
    assert "mine.yaml" in str(caught.value)


def test_a_missing_config(tmp_path):
    with pytest.raises(DtmdError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
