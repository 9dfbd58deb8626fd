"""HDF5 store of trajectories: contiguous arrays, so that a piece of a trajectory is a slice of a memory map."""

from __future__ import annotations

from dtmd.store.description import describe_store
from dtmd.store.layout import in_slices, is_store
from dtmd.store.reading import read_store
from dtmd.store.writing import StoreChange, write_store

__all__ = ["StoreChange", "describe_store", "in_slices", "is_store", "read_store", "write_store"]
