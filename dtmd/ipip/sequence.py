"""An iterative pretraining from its beginning, or from where it was interrupted, to the student that it makes."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ase.formula import Formula

from dtmd.comparison.settings import load_settings
from dtmd.config import CurriculumConfig, dump_config
from dtmd.display import TrainingDisplay
from dtmd.errors import DtmdError
from dtmd.export import export_torchscript
from dtmd.files import locked, write_text, written_whole
from dtmd.ingest import Watch, unwatched
from dtmd.ipip.config import IPIPConfig
from dtmd.ipip.labelling import Launching
from dtmd.ipip.progress import Progress, Round, TeacherRow
from dtmd.ipip.report import write_ipip_report
from dtmd.ipip.rounds import Pretraining, Reference, round_stages
from dtmd.ipip.stages import forget_from
from dtmd.plugin import BUILD_COMMAND, plugin_status
from dtmd.presentation.numbers import clock

CONFIG, LOCK, STUDENT, EXPORTED, REPORT = "config.yaml", ".lock", "student.pt", "student.lammps.pt", "report"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Displays:
    """How a person follows the work.

    Attributes:
        launching: where molecular dynamics and labelling are done, with their display.
        training: of a training with this curriculum.
        reading: of the reference.
    """

    launching: Launching
    training: Callable[[CurriculumConfig], TrainingDisplay]
    reading: Watch = unwatched


def run_ipip(
    config: IPIPConfig, root: Path, displays: Displays, redo: str | None = None, command: str = ""
) -> tuple[Path, Progress]:
    """Do all rounds, or those that are left.

    Args:
        config: what to do.
        root: folder of the whole; one that was interrupted goes on.
        displays: how to follow it, and where tasks are done.
        redo: a stage, such as round_2/probe, that is done again with all that follow it.
        command: what was typed, for the report.

    Returns:
        The model file of the student, and the numbers of all rounds.

    Raises:
        DtmdError: no pair style in LAMMPS, bad data, a teacher that cannot be used, stages made from something else,
            another process in the folder, or runs that give nothing to go on with.
    """
    if problem := plugin_status().problem:  # the student's first runs in LAMMPS are an hour away
        raise DtmdError(f"{problem}, and the student's runs need it. Run: {BUILD_COMMAND}")
    with locked(root / LOCK):
        if redo:
            gone = forget_from(root, redo, round_stages(_n_rounds(root)))
            logger.info("removed, to be done again: %s", ", ".join(gone))
        reference = Reference.read(config, displays.reading)
        survival = load_settings(config.observables).survival([*reference.train, *reference.validation])
        work = Pretraining(config, root, survival, reference, displays.launching, displays.training)
        write_text(root / CONFIG, dump_config(config))
        composition = Formula.from_list(reference.train[0].symbols).convert("hill").count()
        progress = _rounds(config, work, lambda found: write_ipip_report(found, config, composition, root / REPORT,
                                                                         command))
        _keep(progress, root)
    return root / STUDENT, progress


def _n_rounds(root: Path) -> int:
    return len(list(root.glob("round_*")))


def _rounds(config: IPIPConfig, work: Pretraining, reporting: Callable[[Progress], Path]) -> Progress:
    checked = work.check()
    frames, explored = work.explore()
    progress = Progress(TeacherRow(checked["errors"], checked["shift"], explored, checked["seconds"]), [])
    student, renewed, begun = None, explored, time.monotonic()
    for number in range(1, config.rounds + 1):
        pretrained, pretraining = work.pretrain(number, frames, student)
        student, finetuning = work.finetune(number, pretrained)
        ends, probing = work.probe(number, student)
        assessed = work.assess(number, student)
        progress.rounds.append(Round(number, student, ends, renewed, pretraining, finetuning, probing, assessed))
        reporting(progress)
        logger.info("round %d of %d: %s", number, config.rounds, progress.rounds[-1].told())
        if number == config.rounds or _enough(progress, config.least_gain):
            break
        frames, renewed = work.renew(number, frames, student, ends)
        left = (time.monotonic() - begun) / number * (config.rounds - number)
        logger.info("about %s for the rounds that are left, as fast as so far", clock(left))
        if not renewed["new"]:
            logger.info("the student meets no frames that are new; this is the last round")
            break
    return progress


def _enough(progress: Progress, least_gain: float) -> bool:
    """Whether the last round was not worth it."""
    if len(progress.rounds) < 2 or least_gain == 0.0:
        return False
    before, last = progress.rounds[-2:]
    gain = 1.0 - last.validation / before.validation
    if gain >= least_gain or last.share_alive > before.share_alive:
        return False
    logger.info("round %d gained %.1f %% in validation, below least_gain %.1f %%, and no more runs survive: the rounds "
                "end", last.number, 100 * gain, 100 * least_gain)
    return True


def _keep(progress: Progress, root: Path) -> None:
    """The best student, whole under its name, and what LAMMPS reads."""
    best = progress.best
    logger.info("the student is that of round %d: of all rounds the most runs survive, and of those the smallest error "
                "in validation", best.number)
    with written_whole(root / STUDENT) as temporary:
        shutil.copyfile(best.student, temporary)
    export_torchscript(root / STUDENT, root / EXPORTED)
