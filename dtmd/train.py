"""Dynamic training: the stateful loop around rollouts, loss and curriculum."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dtmd.checkpoint import MODEL, ModelFile, load_model, load_tensors, provenance, save_model, save_tensors
from dtmd.compilation import CompiledEvaluation
from dtmd.config import TrainConfig
from dtmd.curriculum import Progress, after_epoch, begin, ending, next_stage, stage_converged
from dtmd.display import TrainingDisplay
from dtmd.errors import DtmdError
from dtmd.files import append_line, sha256, write_text
from dtmd.losses import RolloutLoss
from dtmd.memory import enough_memory
from dtmd.neighbors import Edges, FrameEdges, RolloutEdges
from dtmd.potential import Potential, Prediction
from dtmd.ranks import Ranks
from dtmd.rollout import PART_ATOMS, NonFiniteForces, accumulate_gradient
from dtmd.run_folder import CHECKPOINT, START, claim, started, with_its_model
from dtmd.subsequences import Points, epoch_order
from dtmd.training_data import (
    MIXED, TrainingData, closest_pairs, fit_reference_energies, load_training_data, mixed_text,
)
from dtmd.training_report import TrainingReport
from dtmd.training_report.about import describe
from dtmd.training_report.records import METRICS
from dtmd.training_report.tensorboard import require_tensorboard
from dtmd.validation import Validation, validate

logger = logging.getLogger(__name__)


def train(config: TrainConfig, run_dir: Path, display: TrainingDisplay, ranks: Ranks = Ranks()) -> Path:
    """Run or continue the training that `config` describes; returns the path of the best model.

    A run that was killed goes on from its last checkpoint and ends with the same weights as an
    undisturbed one, to rounding also on another number of ranks.

    Raises:
        DtmdError: bad data, a folder that holds another run, a model to start from that does not fit, forces
            that are not finite, too little memory, TensorBoard that is asked for and not installed, ranks that read
            other data or are gone.
    """
    if config.tensorboard:
        ranks.on_main(require_tensorboard)
    ranks.set_threads(config.threads)
    with ranks.together(), enough_memory(lambda: "the AIMD does not fit into the memory; put it into a store with "
                                         "dtmd ingest, which is not loaded but mapped, and train on that"):
        data = load_training_data(config, display.reading)
    digest = ranks.on_main(lambda: data.digest)
    with ranks.together():
        if data.digest != digest:
            raise DtmdError(f"rank {ranks.rank} reads other AIMD than rank 0; give all machines the same files")
    if config.start_from:
        config = ranks.on_main(lambda: with_its_model(config, run_dir))
    ranks.on_main(lambda: claim(run_dir, config))
    return Trainer(config, run_dir, data, display, ranks).run()


class Trainer:
    """State of a run: weights, optimizer, curriculum, position in the epoch; the same on all ranks."""

    def __init__(
        self, config: TrainConfig, run_dir: Path, data: TrainingData, display: TrainingDisplay, ranks: Ranks
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.data = data
        self.display = display
        self.ranks = ranks
        with ranks.together():
            self.device = ranks.device(config.device)
        potential = ranks.on_main(
            lambda: started(config, run_dir, data.elements) if config.start_from else data.new_potential(config)
        )
        self.potential = potential.to(self.device)
        self.loss = RolloutLoss.of(config.loss, potential.elements, self.device)
        self.optimizer = torch.optim.Adam(self.potential.parameters())
        self.average = _average_of(self.potential, config.optimizer.ema_decay)
        if config.compile:
            with ranks.together():
                self.potential.compiled = self.average.module.compiled = CompiledEvaluation(self.device)
        self.points = data.training_points(self.potential, config)
        self.validation_points = data.validation_points(self.potential, config)
        self.validation_indices = self.validation_points.spread(config.data.validation_points)
        self.probes = data.probes(self.potential)
        self.progress = begin(config.curriculum)
        self.best = math.inf
        self.epoch = 0
        self.next_batch = 0
        self.loss_sum = self.norm_sum = 0.0
        self.updates = 0
        self.epoch_began = 0.0  # on the clock of `seconds`
        self._seconds_before = 0.0  # of training, until the last interruption
        self._begun = self._last_checkpoint = time.monotonic()
        self._restore()

    @property
    def length(self) -> int:
        """S of the current stage."""
        return self.config.curriculum.lengths[self.progress.stage]

    @property
    def epoch_points(self) -> int:
        """Subsequences of an epoch."""
        return min(self.config.curriculum.epoch_points or len(self.points), len(self.points))

    @property
    def n_batches(self) -> int:
        """Updates per epoch."""
        return math.ceil(self.epoch_points / self.config.optimizer.batch_size)

    @property
    def seconds(self) -> float:
        """Time that the training has taken so far, over all interruptions."""
        return self._seconds_before + time.monotonic() - self._begun

    def ending(self) -> str | None:
        """Why the training is over, None if it is not; by the clock of rank 0."""
        curriculum = self.config.curriculum
        hours = 0.0 if curriculum.max_hours is None else self.ranks.on_main(lambda: self.seconds / 3600.0)
        return ending(self.progress, self.updates, hours, curriculum)

    def run(self) -> Path:
        """Train until the curriculum is finished."""
        logger.info(
            "%d training subsequences from %d trajectories, %d to an epoch; %d validation rollouts of %d frames from "
            "%d others; %s; %d parameters; ranks: %d on %s", len(self.points), len(self.data.training),
            self.epoch_points, len(self.validation_indices), self.config.curriculum.validation_length,
            len(self.data.validation), self._timesteps, sum(p.numel() for p in self.potential.parameters()),
            self.ranks.size, self.device.type,
        )
        if len(self.validation_indices) < self.config.data.validation_points:
            logger.info("these are all validation rollouts there are, data.validation_points asks for %d",
                        self.config.data.validation_points)
        fit = fit_reference_energies(self.data.training, self.data.elements)
        logger.info("reference energies, eV/atom: %s", ", ".join(
            f"{element} {value:.4f}" for element, value in zip(
                self.potential.elements, self.potential.reference_energies.tolist(), strict=True)
            if element in self.data.elements))
        if self.config.start_from and self.updates == 0:
            offset = self.data.energy_offset(self.potential)
            if abs(offset) > MIXED:
                logger.warning("warning: the AIMD energies are %+.2f eV/atom off those of the model to start from: it "
                               "is of another level of theory. Its reference energies stay as they are; with "
                               "loss.energy_weight: 0 the forces alone are trained on, which is all that MD needs",
                               offset)
        if fit.seems_mixed:
            logger.warning("warning: %s", mixed_text(fit))
        for name, points in (("training", self.points), ("validation", self.validation_points)):
            if points.n_left_out:
                logger.info("%d frames of the %s data are in pieces too short for a subsequence and are left out",
                            points.n_left_out, name)
        if self.config.data.validation is None and self.config.data.split == "time":
            logger.info("validation on the last part of the runs that are trained on: it flatters the model")
        about = describe(self.data, self.potential, self.points, self.validation_indices, str(self.device))
        with self.ranks.together():
            report = (TrainingReport(self.run_dir, self.config, about, self.updates - self.next_batch)
                      if self.ranks.is_main else nullcontext())
        with self.display, report:
            # Some model there must be, and an epoch that was begun is closed.
            while self.updates == 0 or self.next_batch > 0 or self.ending() is None:
                self._train_epoch()
                self._close_epoch(report)
        logger.info("the training is over: %s; %d updates in %.2f h, best MEPA %.4f eV/Å",
                    self.ending(), self.updates, self.seconds / 3600.0, self.best)
        if not self.ranks.on_main((self.run_dir / MODEL).exists):
            raise DtmdError(f"{self.run_dir}: every validation rollout came to forces that are not finite, so there "
                            "is no model; train longer at S = 1, or lower curriculum.validation_length")
        return self.run_dir / MODEL

    @property
    def _timesteps(self) -> str:
        timesteps = ", ".join(f"{timestep:g}" for timestep in self.data.timesteps)
        return f"Δt {timesteps} fs" if timesteps else "frames are not followed in time"

    def _train_epoch(self) -> None:
        batch_size = self.config.optimizer.batch_size
        order = epoch_order(len(self.points), self.epoch_points, self.config.seed, self.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.progress.learning_rate
        while self.next_batch < self.n_batches and (self.next_batch == 0 or self.ending() is None):
            first = self.next_batch * batch_size
            self.loss_sum += self._update(order[first : first + batch_size])
            self.next_batch += 1
            self.updates += 1
            self.display.batch_done(self.epoch, self.next_batch, self.n_batches, self.progress, self.best)
            if self.ranks.is_main and time.monotonic() - self._last_checkpoint > 60.0 * self.config.checkpoint_minutes:
                self._save_checkpoint()

    @cached_property
    def _n_parts(self) -> int:
        """Parts of a batch, see `OptimizerConfig.accumulate`."""
        options = self.config.optimizer
        if options.accumulate is not None or self.device.type != "cpu":
            return options.accumulate or 1
        n_atoms = np.mean([len(t.numbers) for t in self.data.training])
        return min(math.ceil(options.batch_size * n_atoms / PART_ATOMS), options.batch_size)

    def _update(self, indices: list[int]) -> float:
        """One optimizer step on these subsequences, of which each rank does its share; returns the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        own, trouble = self.ranks.share(indices), None
        try:
            with enough_memory(self._too_large_batch):
                own_loss = self._add_gradient(own, len(indices))
        except DtmdError as error:  # the other ranks hear of it by the sum
            own_loss, trouble = torch.full((), math.nan, dtype=torch.float64, device=self.device), error
        loss = self.ranks.sum_gradients(self.potential.parameters(), own_loss).item()
        norm = torch.nn.utils.clip_grad_norm_(self.potential.parameters(), self.config.optimizer.gradient_clip)
        if not math.isfinite(loss) or not torch.isfinite(norm):
            what = f"loss {loss:g}, gradient norm {norm:g}"
            if trouble is None and not torch.isfinite(own_loss):
                trouble = self._broken_batch(own, what)
            self.ranks.raise_first(trouble)
            raise self._broken_batch(indices, what)
        self.norm_sum += norm.item()
        self.optimizer.step()
        self.average.update_parameters(self.potential)
        return loss

    def _add_gradient(self, own: Sequence[int], batch_size: int) -> Tensor:
        """Add the gradient of this rank's share of a batch; returns what it adds to the loss of the whole."""
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        n_parts = min(math.ceil(self._n_parts / self.ranks.size), len(own))
        for part in np.array_split(own, n_parts) if n_parts else ():
            points = self.points.batch(part, self.device)
            try:
                loss = loss + self._accumulate(points, share=len(part) / batch_size)
            except NonFiniteForces as error:
                raise DtmdError(self._broken(points.names, str(error))) from error
        return loss

    def _accumulate(self, points: Points, share: float) -> Tensor:
        """Add the gradient of a part of a batch; returns what it adds to the loss of the whole."""
        structures = points.start.structures

        def loss(predictions: list[Prediction]) -> Tensor:
            return share * self.loss(structures, predictions, points.energies, points.forces)

        return accumulate_gradient(
            self.potential, points.start, self._edges(points), self.length, loss, self.config.rollout.cut_every
        )

    def _edges(self, points: Points) -> RolloutEdges:
        edges = Edges(points.start.structures, self.potential.config.cutoff, self.config.optimizer.skin)
        if self.config.rollout.neighbors == "predicted":
            return edges
        return FrameEdges(edges, points.positions, self.config.rollout.neighbors_every)

    def _broken_batch(self, indices: Sequence[int], what: str) -> DtmdError:
        return DtmdError(self._broken(self.points.batch(indices[:4], self.device).names, what))

    @property
    def _place(self) -> str:
        return f"S = {self.length}, epoch {self.epoch}, batch {self.next_batch}"

    def _broken(self, names: list[str], what: str) -> str:
        lower = f"lower learning rates than the {self.progress.learning_rate:g} here or longer stages before this one"
        model = self.run_dir / MODEL
        advice = (f"Go on from the best model so far in a new folder: start_from: {model}, with {lower}"
                  if model.exists() else f"Begin anew in a new folder, with {lower}")
        return (f"{self.run_dir}: training broke down at {self._place}: {what}. Batch: {', '.join(names[:4])}, … "
                f"{advice}")

    def _too_large_batch(self) -> str:
        size, parts = self.config.optimizer.batch_size, self._n_parts
        advice = (f"set optimizer.accumulate to {min(2 * parts, size)}, up to {size}, for smaller parts and the same "
                  "result" if parts < size else "that is one by one: take a smaller model or model.cutoff, in a new "
                  "folder")
        return (f"{self.run_dir}: not enough memory at {self._place}: optimizer.batch_size {size} in {parts} parts. "
                f"The last checkpoint is kept; {advice}, and repeat the command")

    def _too_many_rollouts(self) -> str:
        size = self.config.optimizer.validation_batch_size
        return (f"{self.run_dir}: not enough memory for the validation after {self._place}: {size} rollouts side by "
                f"side. The last checkpoint is kept; set optimizer.validation_batch_size to {max(size // 2, 1)} or "
                "less, which has the same result, and repeat the command")

    def _close_epoch(self, report: AbstractContextManager) -> None:
        """Validate, save what is best, move the curriculum on, checkpoint."""
        curriculum, options = self.config.curriculum, self.config.optimizer
        self.display.validating()
        trained_in = self.seconds - self.epoch_began
        with enough_memory(self._too_many_rollouts):
            validation = validate(
                self.average.module, self.validation_points, self.validation_indices, curriculum.validation_length,
                options.validation_batch_size, options.skin, self.ranks,
            )
        record = {
            "epoch": self.epoch, "stage": self.progress.stage + 1, "S": self.length,
            "learning_rate": self.progress.learning_rate, "updates": self.updates,
            "loss": self.loss_sum / self.next_batch, "gradient_norm": self.norm_sum / self.next_batch,
            "validation": validation.as_dict() | ({} if validation.diverged else {"by_step": validation.curves()}),
        }
        self.progress = after_epoch(self.progress, validation.mepa, curriculum)
        record["best_of_stage"] = self.progress.improved
        if self.progress.improved:
            self.ranks.on_main(lambda: self._save_best(validation))
            self.best = min(self.best, validation.mepa)
        converged = stage_converged(self.progress, curriculum)
        if converged:
            self._begin_next_stage()
        now = self.seconds
        record |= {
            "ends": "training" if self.ending() else "stage" if converged else None,
            "seconds": round(now - self.epoch_began, 3),
            "updates_per_second": round(self.next_batch / trained_in, 3),
        }
        self.epoch, self.next_batch, self.loss_sum, self.norm_sum = self.epoch + 1, 0, 0.0, 0.0
        self.epoch_began = now
        self.ranks.on_main(lambda: self._write(record, report))
        self.display.epoch_done(record, self.n_batches, self.progress)

    def _write(self, record: dict, report: TrainingReport) -> None:
        """What is left of an epoch in the run folder."""
        append_line(self.run_dir / METRICS, json.dumps(record))
        report.epoch_done(record)
        self._save_checkpoint()

    def _begin_next_stage(self) -> None:
        """Go on from the best weights of this stage."""
        best = self.run_dir / f"best_S{self.length}.pt"
        # Absent when every rollout of the stage diverged.
        weights = self.ranks.on_main(lambda: load_model(best).potential.state_dict() if best.exists() else None)
        if weights is not None:
            self.potential.load_state_dict(weights)
            self.average.module.load_state_dict(weights)
        self.progress = next_stage(self.progress, self.config.curriculum)

    def _save_best(self, validation: Validation) -> None:
        model = ModelFile(self.average.module, self.probes, {
            "config": self.config.model_dump(mode="json"),
            "data_sha256": self.data.digest,
            "validation": {"S": self.length, "epoch": self.epoch, **validation.as_dict()},
            "closest_pairs": self._closest_pairs,
            "versions": provenance(),
            "units": {"energy": "eV", "length": "angstrom"},
        } | self._start_record())
        save_model(model, self.run_dir / f"best_S{self.length}.pt")
        if validation.mepa < self.best:
            save_model(model, self.run_dir / MODEL)

    @cached_property
    def _closest_pairs(self) -> dict[str, float]:
        """Of the training data, for LAMMPS to tell where the potential extrapolates."""
        return closest_pairs(self.data.training, self.potential.elements, self.potential.config.cutoff)

    def _start_record(self) -> dict:
        """Provenance of the weights that the training started from."""
        if self.config.start_from is None:
            return {}
        return {"start_from": {"path": str(self.config.start_from), "sha256": sha256([self.run_dir / START])}}

    def _save_checkpoint(self) -> None:
        save_tensors({
            "data_sha256": self.data.digest,
            "weights": self.potential.state_dict(), "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress), "best": self.best,
            "epoch": self.epoch, "next_batch": self.next_batch, "loss_sum": self.loss_sum,
            "norm_sum": self.norm_sum, "updates": self.updates,
            "seconds": self.seconds, "epoch_began": self.epoch_began,
        }, self.run_dir / CHECKPOINT)
        self._last_checkpoint = time.monotonic()

    def _restore(self) -> None:
        """Take up the last checkpoint, if there is one."""
        state = self.ranks.on_main(self._last_state)
        if state is None:
            return
        self.potential.load_state_dict(state["weights"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress, self.best = Progress(**state["progress"]), state["best"]
        self.epoch, self.next_batch, self.loss_sum = state["epoch"], state["next_batch"], state["loss_sum"]
        self.norm_sum, self.updates = state["norm_sum"], state["updates"]
        self._seconds_before, self.epoch_began = state["seconds"], state["epoch_began"]
        what = "finished before" if self.ending() else "continuing"
        logger.info(
            "%s: %s, S = %d, epoch %d, batch %d", self.run_dir, what, self.length, self.epoch, self.next_batch
        )

    def _last_state(self) -> dict | None:
        """What the last checkpoint holds, if there is one; metrics written after it are forgotten."""
        path, metrics = self.run_dir / CHECKPOINT, self.run_dir / METRICS
        if not path.exists():
            metrics.unlink(missing_ok=True)
            return None
        state = load_tensors(path)
        if state["data_sha256"] != self.data.digest:
            raise DtmdError(f"{path}: the AIMD files have changed since this run began; give another folder with -o")
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        write_text(metrics, "".join(line + "\n" for line in lines[: state["epoch"]]))
        return state


def _average_of(potential: Potential, decay: float | None) -> AveragedModel:
    """The weights that are validated and saved; without a decay they follow the last update."""
    if decay is None:
        return AveragedModel(potential, avg_fn=lambda average, current, count: current)
    return AveragedModel(potential, multi_avg_fn=get_ema_multi_avg_fn(decay))
