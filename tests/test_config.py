"""The strict config."""

import json
from pathlib import Path

import pytest
import yaml

import dtmd
from dtmd.config import PRESETS, TrainConfig, config_for, differences, dump_config, load_config
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
    ("preset: smal\ndata: {train: [a]}", r"preset: .*'article', 'small' or 'production' \(found 'smal'\)"),
    ("preset: [small]\ndata: {train: [a]}", "preset: .*'article', 'small' or 'production'"),
    ("preset: small\ndata: {train: [a]}\nmodel: {widht: 3}", r"unknown key model.widht; did you mean width\?"),
    ("data: {train: [a]}\ncurriculum: {stop_after: 0}", "curriculum.stop_after: .*equal to 1 .found 0"),
])
def test_bad_configs_name_file_and_key(tmp_path, text, message):
    with pytest.raises(DtmdError, match=message) as caught:
        load_config(write(tmp_path, text))
    assert "mine.yaml" in str(caught.value)


def test_a_missing_config(tmp_path):
    with pytest.raises(DtmdError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_every_preset_is_a_file_and_the_other_way_round():
    files = {path.stem for path in (Path(dtmd.__file__).parent / "presets").iterdir()}
    assert files == set(PRESETS)
    schema = json.dumps(TrainConfig.model_json_schema()["properties"]["preset"])
    assert all(f'"{name}"' in schema for name in PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_and_data_are_a_config_that_shows_every_value(tmp_path, preset):
    config = load_config(write(tmp_path, f"preset: {preset}\ndata: {{train: [aimd]}}"))
    assert config.data.train == [tmp_path / "aimd"] and config.preset == preset
    assert load_config(write(tmp_path, dump_config(config))) == config
    assert set(yaml.safe_load(dump_config(config))["curriculum"]) == set(type(config.curriculum).model_fields)


def test_the_article_preset_is_the_article(tmp_path):
    config = load_config(write(tmp_path, "preset: article\ndata: {train: [aimd]}"))
    model, curriculum = config.model, config.curriculum
    assert (model.envelope, model.readout, model.n_knots, model.cutoff) == ("none", "pooled", 0, 5.0)
    assert (model.width, model.n_layers, model.n_frequencies, model.frequency_std) == (128, 3, 256, 4.0)
    assert curriculum.lengths == list(range(1, 12)) and curriculum.validation_length == 60
    assert (curriculum.learning_rate, curriculum.reset_learning_rate, curriculum.minimum_learning_rate) == (
        1e-3, 1e-4, 2e-6)
    assert (curriculum.decay, curriculum.patience, curriculum.max_epochs) == (0.33, 15, None)
    assert (config.rollout.bptt, config.rollout.neighbors, config.rollout.neighbors_every) == ("full", "aimd", 1)
    assert (config.optimizer.batch_size, config.optimizer.validation_batch_size) == (32, 256)
    assert (config.optimizer.gradient_clip, config.optimizer.ema_decay) == (1.0, None)
    assert (config.data.stride, config.data.validation_points) == (1, 2048)


def test_keys_of_the_file_override_those_of_the_preset(tmp_path):
    text = "preset: small\ndata: {train: [a], stride: 5}\nmodel: {width: 32}\noptimizer: {ema_decay: null}"
    config = load_config(write(tmp_path, text))
    assert (config.data.stride, config.data.validation_points) == (5, 8)
    assert (config.model.width, config.model.n_frequencies) == (32, 64)
    assert (config.optimizer.ema_decay, config.optimizer.batch_size) == (None, 4)


def test_another_architecture_leaves_the_model_of_the_preset(tmp_path):
    config = load_config(write(tmp_path, "preset: small\ndata: {train: [a]}\nmodel: {architecture: painn}"))
    assert (config.model.architecture, config.model.width, config.optimizer.batch_size) == ("painn", 128, 4)


def test_aimd_without_a_config_is_trained_on_with_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_for([Path("data.v2/aimd.h5:run*"), Path("more")], None)
    assert (config.preset, config.name) == ("production", "aimd")
    assert config.data.train == [tmp_path / "data.v2/aimd.h5:run*", tmp_path / "more"]
    assert config_for([Path(".")], "small").name == tmp_path.name.replace(".", "_")
    assert config_for([], None) == load_config(None)


@pytest.mark.parametrize(("sources", "preset", "message"), [
    (["a.yaml", "aimd"], None, "a.yaml: a config stands alone"),
    (["a.yaml"], "small", "a.yaml: a config stands alone"),
    ([], "small", "name the AIMD to train on"),
    (["aimd"], "large", "command line: preset: .*'article', 'small' or 'production' .found 'large'"),
])
def test_what_does_not_go_together_on_the_command_line(sources, preset, message):
    with pytest.raises(DtmdError, match=message):
        config_for([Path(source) for source in sources], preset)


def test_differences_between_configs_name_the_keys(tmp_path):
    config = load_config(write(tmp_path, "data: {train: [a]}"))
    other = load_config(write(tmp_path, "data: {train: [a], stride: 2}\noptimizer: {accumulate: 4}"))
    assert differences(dump_config(config), config) == {}
    assert differences(dump_config(config), other) == {
        "data.stride": "2 (was 1)", "optimizer.accumulate": "4 (was None)"}


def test_a_model_to_start_from_leaves_the_model_of_the_preset(tmp_path):
    config = load_config(write(tmp_path, "preset: small\ndata: {train: [a]}\nstart_from: old.pt"))
    assert not config.model.model_fields_set - {"architecture"} and config.optimizer.batch_size == 4
