"""Training, validation and test sets of whole runs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from dtmd.errors import DtmdError
from dtmd.store import write_store
from dtmd.subsequences import by_run
from dtmd.trajectory import Trajectory


def split_runs(trajectories: Sequence[Trajectory], shares: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    """Deal whole runs out at random: names of the runs of each part, at least one each.

    The order in which the trajectories come does not matter.

    Args:
        trajectories: pieces of one run go to one part.
        shares: of the runs, by the name of the part, such as {"train": 0.8, "validation": 0.1, "test": 0.1};
            they add up to 1.
        seed: of the random choice.

    Raises:
        DtmdError: shares that are not positive or do not add up to 1, or fewer runs than parts.
    """
    runs = sorted(by_run(trajectories))
    if min(shares.values()) <= 0.0 or abs(sum(shares.values()) - 1.0) > 1e-6:
        raise DtmdError(f"shares {', '.join(f'{name} {share:g}' for name, share in shares.items())}: "
                        "must be positive and add up to 1")
    if len(runs) < len(shares):
        raise DtmdError(f"{len(runs)} runs cannot be split into {', '.join(shares)}: frames of one run are too alike "
                        "to be parted; give more runs or fewer parts")
    random.Random(seed).shuffle(runs)
    sizes = dict.fromkeys(shares, 1)
    for _ in range(len(runs) - len(shares)):
        sizes[max(shares, key=lambda name: shares[name] * len(runs) - sizes[name])] += 1
    return {name: sorted(runs.pop() for _ in range(size)) for name, size in sizes.items()}


def write_split(
    trajectories: Sequence[Trajectory], shares: Mapping[str, float], seed: int, path: Path
) -> dict[str, tuple[Path, list[str]]]:
    """Write the parts of `split_runs` as stores: for DATA.h5 DATA.train.h5 and so on, all or none.

    Returns:
        The store and the runs of each part.

    Raises:
        DtmdError: as `split_runs` and `write_store`; a store that is there already.
    """
    parts = split_runs(trajectories, shares, seed)
    paths = {name: path.with_suffix(f".{name}.h5") for name in parts}
    for target in paths.values():
        if target.exists():
            raise DtmdError(f"{target}: is there already; parts of two splits must not be mixed. Remove it, or give "
                            "another name")
    runs, written = by_run(trajectories), []
    try:
        for name, target in paths.items():
            write_store(target, (t for run in parts[name] for t in runs[run]), append=False)
            written.append(target)
    except BaseException:
        for target in written:
            target.unlink()
        raise
    return {name: (paths[name], parts[name]) for name in parts}
