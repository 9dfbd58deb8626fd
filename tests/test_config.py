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
    assert (config.model.width, config.model.n_frequencies, config.model.cutoff) == (128, 256, 5.0)


@pytest.mark.parametrize(("text", "message"), [
    ("data: {train: [a]}\nmodle: {}", r"unknown key modle; did you mean model\?"),
    ("data: {train: [a], strid: 2}", r"unknown key data.strid; did you mean stride\?"),
    ("data: {train: [a]}\nmodel: {widht: 3}", r"unknown key model.widht; did you mean width\?"),
    ("data: {train: [a]}\noptimizer: {batch_size: 0}", r"optimizer.batch_size: .*or equal to 1 \(found 0\)"),
    ("data: {train: []}", "data.train"),
    ("model: {width: 3}", "data: Field required"),
    ("data: {train: [a]}\ncurriculum: {lengths: [1, 3, 2]}", "must increase"),
    ("data: {train: [a]}\ncurriculum: {lengths: [1, 2], max_epochs: [5]}", "1 entries for 2 lengths"),
    ("data: {train: [a]}\ncurriculum: {minimum_learning_rate: 0.1}", "above the learning rates"),
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
