"""The curves of a run as TensorBoard events; the package is loaded only if they are asked for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from dtmd.errors import DtmdError


def require_tensorboard() -> None:
    """See that the package is there before a training begins.

    Raises:
        DtmdError: it is not.
    """
    if find_spec("tensorboard") is None:
        raise DtmdError("tensorboard: true needs a package that is not installed: pip install tensorboard; or leave "
                        "the key out, metrics.jsonl and learning_curves.png hold the same curves")


class EventWriter:
    """Appends the records of epochs to event files, over the number of updates.

    Args:
        folder: of the event files.
        last_update: updates of the last epoch that counts; TensorBoard forgets those after it, which a killed
            process left behind.
    """

    def __init__(self, folder: Path, last_update: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=last_update + 1)

    def write(self, record: dict) -> None:
        """One epoch, on disk when this returns."""
        for tag, value in scalars(record).items():
            self._writer.add_scalar(tag, value, record["updates"])
        self._writer.flush()

    def close(self) -> None:
        """No more epochs follow."""
        self._writer.close()


def scalars(record: dict) -> dict[str, float]:
    """Tags and values of an epoch; errors of a validation that diverged are left out."""
    validation = record["validation"]
    values = {
        "training/loss": record["loss"], "training/gradient_norm": record["gradient_norm"],
        "training/learning_rate": record["learning_rate"], "training/S": record["S"],
        "training/updates_per_second": record["updates_per_second"], "validation/MEPA": validation["mepa"],
        "validation/first_frame": validation.get("first_frame"), "validation/last_frame": validation.get("last_frame"),
        "validation/energy_per_atom": validation.get("energy_per_atom"),
    } | {f"species/{element}": value for element, value in validation.get("by_species", {}).items()}
    return {tag: value for tag, value in values.items() if value is not None}
