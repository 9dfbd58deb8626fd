"""The XML file of Quantum ESPRESSO's pw.x (`prefix.xml`) with `calculation='md'` or `'vc-md'`, all digits kept.

In Hartree atomic units but for the time step, which is in Rydberg ones, as in the input. Each `<step>` holds
positions, cell, energy and forces that belong together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from xml.etree import ElementTree

import numpy as np
from ase.data import atomic_numbers

from dtmd.errors import DtmdError
from dtmd.ingest.source import Candidate, CutShort, Format, Frame, RawRun, Source
from dtmd.units import ATOMIC_TIME, BOHR, HARTREE

_TIME = 2.0 * ATOMIC_TIME
_SETTINGS = {
    "dft/functional": "functional", "ion_control/md/ion_temperature": "thermostat",
    "ion_control/ion_dynamics": "ion dynamics",
}


def _find(candidates: list[Candidate]) -> list[Source]:
    return [Source(c.path) for c in candidates
            if "<qes:espresso" in c.head and re.search(r"<calculation>(vc-)?md</calculation>", c.head)]


def _read(source: Source) -> RawRun:
    version, given = "", None
    for element in _elements(source, ("creator", "input")):
        if element.tag == "input":
            given = element
            break
        version = element.get("VERSION", "")
    if given is None:
        raise CutShort(f"{source.main}: ends before </input>; pw.x did not finish writing it")
    what = f"{source.main}: <input>"
    kinds = given.iterfind("atomic_species/species")
    masses = {kind.get("name"): _numbers(kind, "mass", 1, what)[0] for kind in kinds}
    labels = _labels(given)
    for label in labels:
        if label not in masses or _element(label) is None:
            raise DtmdError(f"{what}: atom {label!r} is no element of <atomic_species>; the file is damaged, or the "
                            "species is not named after its element")
    free = given.find("free_positions")
    fixed = None if free is None else _numbers(given, "free_positions", 3 * len(labels), what).reshape(-1, 3) == 0
    timed = given.find("ion_control/md/timestep") is not None
    settings: dict[str, str | float] = {
        name: given.findtext(path, "").strip() for path, name in _SETTINGS.items() if given.find(path) is not None}
    if given.find("basis/ecutwfc") is not None:
        settings["cutoff"] = f"{2.0 * _numbers(given, 'basis/ecutwfc', 1, what)[0]:g} Ry"
    notes: list[str] = []
    return RawRun(
        code="Quantum ESPRESSO pw.x", version=version, numbers=np.array([_element(label) for label in labels]),
        masses=np.array([masses[label] for label in labels]), pbc=np.ones(3, bool),
        frames=_frames(source, labels, notes),
        timestep=_numbers(given, "ion_control/md/timestep", 1, what)[0] * _TIME if timed else None,
        timestep_from="timestep" if timed else "", fixed=fixed if fixed is not None and fixed.any() else None,
        settings=settings, notes=notes,
    )


def _frames(source: Source, labels: list[str], notes: list[str]) -> Iterator[Frame]:
    n_steps = 0
    for step in _elements(source, ("step",)):
        number = step.get("n_step", "")
        what = f"{source.main}: step {number or n_steps + 1}"
        if not number.isdigit():
            raise DtmdError(f"{what}: n_step is {number!r}, expected its number; copy the file again")
        if _labels(step) != labels:
            raise DtmdError(f"{what}: atoms {_labels(step)[:5]} …, the input has {labels[:5]} …; copy the file again")
        if "false" in step.findtext("scf_conv/convergence_achieved", "true"):
            notes.append(f"step {number}: the SCF did not converge")
        positions = [_row(atom, what) for atom in step.iterfind("atomic_structure/atomic_positions/atom")]
        cell = [_numbers(step, f"atomic_structure/cell/a{k}", 3, what) for k in (1, 2, 3)]
        forces = None
        if step.find("forces") is not None:
            forces = _numbers(step, "forces", 3 * len(labels), what).reshape(-1, 3) * HARTREE / BOHR
        yield Frame(
            positions=np.array(positions) * BOHR, cell=np.array(cell) * BOHR, forces=forces,
            energy=_numbers(step, "total_energy/etot", 1, what)[0] * HARTREE, step=int(number),
        )
        n_steps += 1
    if not n_steps:
        raise DtmdError(f"{source.main}: no <step>; pw.x writes them when the run ends")


def _elements(source: Source, tags: tuple[str, ...]) -> Iterator[ElementTree.Element]:
    """The elements with these tags; each child of the root is forgotten when the next is asked for."""
    parser = ElementTree.XMLPullParser(("start", "end"))
    parents: list[ElementTree.Element] = []
    with closing(source.lines(source.main)) as lines:
        for line in lines:
            try:
                parser.feed(line + "\n")
                events = list(parser.read_events())
            except (ElementTree.ParseError, ValueError, LookupError) as error:
                raise lines.error(f"no valid XML ({error}); the file is damaged, copy it again") from None
            for event, element in events:
                if event == "start":
                    parents.append(element)
                    continue
                parents.pop()
                if element.tag in tags:
                    yield element
                if len(parents) == 1:
                    parents[0].remove(element)
        if parents:
            raise CutShort(f"{lines.path}: ends after line {lines.number} inside <{parents[-1].tag}>")


def _labels(structure: ElementTree.Element) -> list[str]:
    return [atom.get("name", "") for atom in structure.iterfind("atomic_structure/atomic_positions/atom")]


def _element(label: str) -> int | None:
    name = re.match(r"[A-Z]?[a-z]?", label)[0]
    return atomic_numbers.get(name) or atomic_numbers.get(name[:1])


def _numbers(parent: ElementTree.Element, path: str, n_numbers: int, what: str) -> np.ndarray:
    element = parent.find(path)
    if element is None:
        raise DtmdError(f"{what}: no <{path}>; the file is damaged, copy it again")
    return _row(element, what, n_numbers)


def _row(element: ElementTree.Element, what: str, n_numbers: int = 3) -> np.ndarray:
    text = element.text or ""
    try:
        numbers = np.array([float(word) for word in text.split()])
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) != n_numbers:
        raise DtmdError(f"{what}: expected {n_numbers} numbers in <{element.tag}>, found {text.strip()[:60]!r}; "
                        "copy the file again")
    return numbers


FORMAT = Format("Quantum ESPRESSO XML", _find, _read)
