"""Model files that mace-torch writes: those of `mace_run_train` and foundation models such as MACE-MP.

Such a file is a pickled module, and unpickling runs whatever code a file names. Here torch's restricted unpickler
reads it, with inert records in place of the classes of mace-torch and e3nn: settings and weights are taken from
the records, and nothing that is in the file is run. A class that is not listed here is one that `MACE` cannot
represent, and the file is refused with its name.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from ase.data import chemical_symbols
from torch import Tensor

from dtmd.artefact import members
from dtmd.errors import DtmdError
from dtmd.models.mace import Interaction, MACEConfig
from dtmd.potential import Potential

CLASSES = {
    "mace.modules.models": "MACE ScaleShiftMACE",
    "mace.modules.blocks": "AtomicEnergiesBlock EquivariantProductBasisBlock LinearNodeEmbeddingBlock "
                           "LinearReadoutBlock NonLinearReadoutBlock RadialEmbeddingBlock ScaleShiftBlock "
                           + " ".join(get_args(Interaction)),
    "mace.modules.irreps_tools": "reshape_irreps",
    "mace.modules.radial": "AgnesiTransform BesselBasis PolynomialCutoff SoftTransform ZBLBasis",
    "mace.modules.symmetric_contraction": "Contraction SymmetricContraction",
    "e3nn.math._normalize_activation": "normalize2mom",
    "e3nn.nn._activation": "Activation",
    "e3nn.nn._fc": "FullyConnectedNet _Layer",
    "e3nn.o3._irreps": "Irrep Irreps _MulIr",
    "e3nn.o3._linear": "Instruction Linear",
    "e3nn.o3._spherical_harmonics": "SphericalHarmonics",
    "e3nn.o3._tensor_product._instruction": "Instruction",
    "e3nn.o3._tensor_product._sub": "FullyConnectedTensorProduct",
    "e3nn.o3._tensor_product._tensor_product": "TensorProduct",
    "torch.fx._symbolic_trace": "Tracer",
    "torch.fx.graph_module": "reduce_graph_module",
    "torch.nn.functional": "silu",
    "torch.nn.modules.container": "ModuleList ParameterList",
}
"""What a file may name beyond tensors and plain data; of each only a record is made."""

REQUIRED = {
    "apply_cutoff": True, "edge_irreps": None, "embedding_specs": None, "use_agnostic_product": False,
    "use_last_readout_only": False, "use_so3": False,
}
"""Settings of a model that `MACEConfig` has no name for, with the values that `MACE` has."""

BLOCKS = ("node_embedding", "radial_embedding", "interactions", "products", "readouts", "pair_repulsion_fn")


class _Record:
    """An object of a file: what it was called with and its state."""

    def __new__(cls, *args: Any) -> _Record:
        record = super().__new__(cls)
        record.args, record.state = args, {}
        return record

    def __setstate__(self, state: dict) -> None:
        self.state = state

    def __getitem__(self, name: str) -> Any:
        """A submodule, parameter, buffer or attribute."""
        for group in ("_modules", "_parameters", "_buffers"):
            if name in self.state.get(group, {}):
                return self.state[group][name]
        return self.state[name]

    def __contains__(self, name: str) -> bool:
        return name in self.state["_modules"]

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All parameters and buffers under the names that they have in a state_dict."""
        for group in ("_parameters", "_buffers"):
            tensors = self.state.get(group, {}).items()
            yield from ((prefix + name, tensor) for name, tensor in tensors if tensor is not None)
        for name, module in self.state.get("_modules", {}).items():
            yield from module.tensors(f"{prefix}{name}.") if module is not None else ()


RECORDS = [(type(name, (_Record,), {}), f"{module}.{name}")
           for module, names in CLASSES.items() for name in names.split()]


def is_mace_file(path: Path) -> bool:
    """Whether a file is a model that mace-torch wrote, by the class names in it."""
    pickles = [name for name in members(path) if name.endswith("/data.pkl")]
    if not pickles:
        return False
    with zipfile.ZipFile(path) as archive:
        return b"cmace.modules.models\n" in archive.read(pickles[0])


def read_mace_file(path: Path) -> Potential:
    """The potential in a file of mace-torch, in the precision of its weights.

    Energies of isolated atoms and the shift become reference energies, the scale the energy scale.

    Raises:
        DtmdError: damaged, or a model that `MACE` cannot represent.
    """
    model = _records(path)
    try:
        _check_settings(path, model)
        config = _config(model)
        elements = [chemical_symbols[number] for number in model["atomic_numbers"].tolist()]
        scale, shift = 1.0, 0.0
        if "scale_shift" in model:
            scale, shift = (model["scale_shift"][name].double().item() for name in ("scale", "shift"))
        energies = model["atomic_energies_fn"]["atomic_energies"].double().reshape(len(elements))
        precision = model["node_embedding"]["linear"]["weight"].dtype
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DtmdError(f"{path}: not laid out as mace-torch does today ({type(error).__name__}: {error}); "
                        "load and save it with the mace-torch that dtmd installs") from error
    potential = Potential(elements, config, energies + shift, scale).to_precision(precision)
    _load_weights(path, potential, model)
    return potential


def _records(path: Path) -> _Record:
    with torch.serialization.safe_globals(RECORDS):
        try:
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            if foreign:
                raise DtmdError(f"{path}: holds {', '.join(sorted(foreign))}, which dtmd cannot represent; it takes "
                                "MACE and ScaleShiftMACE with the blocks that the MACE-MP models have")
            model = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise DtmdError(f"{path}: a damaged model of mace-torch ({str(error).splitlines()[0][:120]}); "
                            "copy or download it again") from error
    if type(model).__name__ not in CLASSES["mace.modules.models"].split():
        raise DtmdError(f"{path}: holds a {type(model).__name__}, not a MACE; give the .model file of mace_run_train")
    return model


def _check_settings(path: Path, model: _Record) -> None:
    """Refuse what would be lost without a trace in the weights."""
    heads = model.state.get("heads", ["Default"])
    if len(heads) > 1:
        raise DtmdError(f"{path}: has {len(heads)} heads ({', '.join(heads)}), dtmd takes one; choose it with "
                        "mace_select_head, which mace-torch installs")
    other = {name: model.state.get(name, value) for name, value in REQUIRED.items()}
    found = [f"{name} {value}" for name, value in other.items() if value != REQUIRED[name]]
    layers = model["readouts"].state["_modules"].values()
    if any("non_linearity" in layer and layer["non_linearity"]["acts"]["0"] is None for layer in layers):
        found.append("a readout without activation")
    if found:
        raise DtmdError(f"{path}: was made with {', '.join(found)}, which dtmd cannot represent")


def _config(model: _Record) -> MACEConfig:
    interactions = list(model["interactions"].state["_modules"].values())
    products = list(model["products"].state["_modules"].values())
    radial = model["radial_embedding"]
    hidden = _irreps(products[0]["linear"]["irreps_out"])
    contraction = products[0]["symmetric_contractions"]["contractions"]["0"]
    first, *others = [type(block).__name__ for block in interactions]
    transform = type(radial["distance_transform"]).__name__ if "distance_transform" in radial else "none"
    later = {}
    if others:
        (width, *_), = _irreps(model["readouts"][str(len(others))]["hidden_irreps"])
        later = {"interaction": others[0], "readout_width": width}
    return MACEConfig(
        cutoff=model["r_max"].item(), channels=hidden[0][0], max_L=max(degree for _, degree, _ in hidden),
        max_ell=max(degree for _, degree, _ in _irreps(model["spherical_harmonics"]["irreps_out"])),
        correlation=len(contraction["weights"].state["_parameters"]) + 1,
        n_layers=len(interactions), n_rbf=len(radial["bessel_fn"]["bessel_weights"]),
        cutoff_power=radial["cutoff_fn"]["p"].item(),
        radial_widths=interactions[0]["conv_tp_weights"]["hs"][1:-1],
        avg_num_neighbors=float(interactions[0]["avg_num_neighbors"]), first_interaction=first,
        distance_transform=transform.removesuffix("Transform"), pair_repulsion="pair_repulsion_fn" in model, **later,
    )


def _irreps(record: _Record) -> list[tuple[int, int, int]]:
    """Multiplicity, degree and parity of each part of an e3nn Irreps."""
    return [(part.args[0][0], *part.args[0][1].args[0]) for part in record.args[0]]


def _load_weights(path: Path, potential: Potential, model: _Record) -> None:
    own = potential.model.state_dict()
    given = {name: value for name, value in model.tensors() if name.split(".")[0] in BLOCKS}
    # e3nn's coupling coefficients lie in the code of the file, which is not run, and marks of paths without any
    # weight came late; both follow from the settings.
    lacking = [name for name in own.keys() - given.keys() if "._compiled_" not in name and not name.endswith("_zeroed")]
    shapes = [name for name in own.keys() & given.keys() if own[name].shape != given[name].shape]
    differ = sorted([*lacking, *shapes, *(given.keys() - own.keys())])
    if differ:
        raise DtmdError(f"{path}: {len(differ)} of its arrays are not those of a MACE with its settings, such as "
                        f"{differ[0]}; models trained with other kernels (cuequivariance) or settings are not read")
    potential.model.load_state_dict(own | given)
