"""Which observables are compared, with which settings: those that fit any system, or a file of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from dtmd.errors import DtmdError
from dtmd.observables.adsorbate import Adsorbate, AdsorbateSettings
from dtmd.observables.bonds import Bonds, BondSettings
from dtmd.observables.conservation import EnergyConservation
from dtmd.observables.dihedrals import Dihedrals, DihedralSettings
from dtmd.observables.displacement import MeanSquareDisplacement
from dtmd.observables.dissociation_comparison import Dissociations, DissociationSettings
from dtmd.observables.distance_comparison import Distances, DistanceSettings
from dtmd.observables.elongation import Elongation, ElongationSettings
from dtmd.observables.neighborhoods import Neighborhoods, NeighborhoodSettings
from dtmd.observables.observable import Observable
from dtmd.observables.orientation import Orientation, OrientationSettings
from dtmd.observables.rdf import RadialDistribution, RDFSettings
from dtmd.observables.rollout_error import RolloutError
from dtmd.observables.spectrum import Spectrum
from dtmd.observables.survival import Survival
from dtmd.observables.temperature import Temperature
from dtmd.trajectory import Trajectory
from dtmd.yaml_files import mapping, read_yaml, unknown_key

_KINDS: Mapping[type[Observable], Callable[..., object] | None] = {
    RolloutError: None, Distances: DistanceSettings, RadialDistribution: RDFSettings,
    Dissociations: DissociationSettings, Elongation: ElongationSettings, Bonds: BondSettings,
    Neighborhoods: NeighborhoodSettings, Dihedrals: DihedralSettings, Adsorbate: AdsorbateSettings,
    Orientation: OrientationSettings, Spectrum: None, MeanSquareDisplacement: None, Temperature: None,
    EnergyConservation: None, Survival: None,
}
"""In the order of the report; with what holds the settings, where that is not the observable itself."""

KINDS: Mapping[str, type[Observable]] = {kind.name: kind for kind in _KINDS}


@dataclass(frozen=True)
class ComparisonSettings:
    """What the user may set.

    Attributes:
        chosen: by observable its settings, checked; those that are not there are not compared.
        starts: start frames that need not be found: {MD file: (AIMD file, frame)}, files by path or name.
    """

    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {name: {} for name in KINDS})
    starts: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def observables(self, aimd: Sequence[Trajectory]) -> list[Observable]:
        """Ready to gather, in the order of the report.

        Args:
            aimd: the reference, at least one trajectory.
        """
        made = []
        for kind, holder in _KINDS.items():
            if kind.name not in self.chosen:
                continue
            given = dict(self.chosen[kind.name])
            if kind is RolloutError:
                given |= {"aimd": aimd, "starts": self.starts}
            if kind is Survival:
                given |= {"reference": aimd}
            made.append(kind(**given) if holder is None else kind(holder(**given)))
        return made

    def survival(self, aimd: Sequence[Trajectory]) -> Survival:
        """That of these settings, also where it is not among what is compared."""
        return Survival(**dict(self.chosen.get(Survival.name, {})), reference=aimd)


def load_settings(path: Path | None, starts: Mapping[str, tuple[str, int]] | None = None) -> ComparisonSettings:
    """Read a file such as

        observables:
          dissociation: {bonds: [[1, 2]], criterion: {broken_above: 1.6}}
          spectrum: false

    where atoms are ids from 1, false leaves an observable out, and what is not named is as without a file.

    Raises:
        DtmdError: names the file, the key, what is wrong and the nearest valid key.
    """
    if path is None:
        return ComparisonSettings(starts=starts or {})
    content = mapping(read_yaml(path, "a YAML file of observables"), str(path))
    _check_keys(content, ["observables"], str(path))
    named = mapping(content.get("observables"), f"{path}: observables")
    _check_keys(named, list(KINDS), f"{path}: observables")
    chosen = {}
    for name in KINDS:
        wanted = named.get(name, True)
        if wanted is not False:
            where = f"{path}: observables.{name}"
            chosen[name] = _arguments(_settable(KINDS[name]), {} if wanted in (True, None) else wanted, where)
    return ComparisonSettings(chosen, starts or {})


def _settable(kind: type[Observable]) -> Callable[..., object]:
    return _KINDS[kind] or kind


def _arguments(make: Callable[..., object], content: object, where: str) -> dict[str, Any]:
    """Keyword arguments of `make`, a class, checked by its annotations."""
    content = mapping(content, where)
    hints = get_type_hints(make.__init__, include_extras=True)
    _check_keys(content, settable_keys(make), where)
    return {key: _value(hints[key], value, f"{where}.{key}") for key, value in content.items()}


def settable_keys(make: Callable[..., object]) -> list[str]:
    """Arguments that a file may give: those of the reference are not among them."""
    return [name for name in signature(make).parameters if name not in ("aimd", "starts", "reference")]


def _value(hint: Any, value: object, where: str) -> object:
    if is_dataclass(hint):
        return hint(**_arguments(hint, value, where))
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        raise DtmdError(f"{where}: {problem['msg']} (found {problem['input']!r})") from error


def _check_keys(content: Mapping[str, Any], valid: list[str], where: str) -> None:
    for key in content:
        if key not in valid:
            raise DtmdError(unknown_key(where, str(key), valid))


def default_yaml() -> str:
    """A file with all observables, the keys of each and their defaults; those that are found from the system empty."""
    named = {name: _defaults(_settable(kind)) for name, kind in KINDS.items()}
    return yaml.safe_dump({"observables": named}, sort_keys=False, allow_unicode=True)


def _defaults(make: Callable[..., object]) -> dict[str, object]:
    parameters = signature(make).parameters
    return {key: _plain(parameters[key].default) for key in settable_keys(make)}


def _plain(value: object) -> object:
    if is_dataclass(value):
        return _defaults(type(value))
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
