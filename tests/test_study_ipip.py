"""The study of iterative pretraining: its plans hold, and its report says what its numbers are."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from dtmd.ipip.config import load_ipip_config

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import study_ipip  # noqa: E402
import study_ipip_arms  # noqa: E402
import study_ipip_report  # noqa: E402

STUDIES = sorted((ROOT / "tools" / "study_ipip").glob("*.yaml"))


def read(path: Path) -> study_ipip.Study:
    return study_ipip.Study.model_validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_arm_has_a_config(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = study_ipip.Plan(read(path), tmp_path)
    arms = [arm for turn in plan.work() for arm in turn]
    assert len({arm.folder for arm in arms}) == len(arms)
    configs = {arm.name: study_ipip_arms.config_of(plan, arm) for arm in arms}
    rounds = configs[study_ipip.ROUNDS]
    assert all(file.exists() for file in (*rounds.reference.train, *rounds.reference.test))
    assert configs[study_ipip.LONGER].rounds == 1 and configs[study_ipip.DYNAMIC].finetune.curriculum.lengths[-1] >= 8
    longer, once = (configs[name].pretrain.curriculum.max_epochs for name in (study_ipip.LONGER, study_ipip.ROUNDS))
    assert longer == plan.study.longer * once
    assert configs["no forgetting"].renew.forget == 0.0 and not configs["no relabelling"].renew.relabel
    assert configs["no forgetting"].renew.relabel and rounds.renew.forget == 0.1


def test_the_embedded_example_is_that_of_the_study(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = study_ipip.Plan(read(ROOT / "tools/study_ipip/ethane.yaml"), tmp_path)
    of_study = study_ipip_arms.config_of(plan, plan.arm("PaiNN", 1, study_ipip.ROUNDS))
    example = load_ipip_config(ROOT / "inputs" / "ethane.yaml")
    for part in ("md", "student", "pretrain", "finetune", "renew", "seed", "rounds"):
        assert getattr(example, part) == getattr(of_study, part), part


def arm(force: float, alive: int, rng) -> dict:
    """Three seeds, 8 frames of four runs, two groups."""
    errors = [np.stack([force + rng.normal(0, 0.001, 8), np.full(8, 0.002)]) for _ in range(3)]
    last = [{"alive": {"1000": [alive, 12]}, "speed": 300.0, "mepa": None, "seconds": 60.0, "frames": [0, 100]}] * 3
    return {"errors": errors, "last": last, "seconds": [60.0] * 3, "rounds": []}


def test_the_report_tells_differences_with_a_verdict():
    rng, study = np.random.default_rng(0), read(ROOT / "tools/study_ipip/ethane.yaml")
    names = study_ipip.WITHOUT, study_ipip.ONCE, study_ipip.ROUNDS
    arms = {name: arm(force, alive, rng)
            for name, force, alive in zip(names, (0.3, 0.05, 0.05), (0, 8, 12), strict=True)}
    error = {"value": 0.25, "low": 0.2, "high": 0.3}
    data = {
        "study": study.model_dump(), "students": {"PaiNN": arms},
        "runs": [f"{group}_{k}" for group in study.groups.values() for k in (0, 0, 1, 1)],
        "teacher": {"errors": {"force": error, "energy": error}, "shift": {"C": 1.0}},
        "explored": [{"alive": {"1000": [12, 12]}, "frames": 1200, "broken": {}, "speed": 200.0}],
    }
    summary = study_ipip_report.summarised(data)
    text = study_ipip_report.markdown(summary)
    assert "| PaiNN | all rounds | 50." in text and "36 of 36 (90 to 100 %)" in text and "0 of 36" in text
    worse = next(line for line in text.splitlines() if "reference alone − pretrained once" in line)
    assert "worse at 300 K, worse at 1000 K" in worse
    same = next(line for line in text.splitlines() if "all rounds − pretrained once" in line)
    assert "not told apart" in same
    assert len(study_ipip_report.figure_of(summary).axes) == 2
