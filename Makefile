# Two commands on a fresh machine with Python 3.11 (or newer), make and pip:
#   make demo   the main job on an embedded data set, no download beyond pip
#   make test   the tests
# Also: make docs (the site, in docs/_build/html), make quality (ruff).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
THREADS ?= $(shell nproc 2>/dev/null || echo 2)
# An OpenMP pool that spins while another job holds the core is up to ten times slower than one that sleeps.
RUNENV := OMP_NUM_THREADS=$(THREADS) OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_TELEMETRY=1

.PHONY: demo test docs quality install clean

install: $(STAMP)

$(STAMP): setup.cfg constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints-cpu.txt -e ".[plots,evaluate,test,dev,docs]"
	touch $@

# One process on the first GPU, if there is one; accelerate launch would only add its start-up time.
demo: $(STAMP)
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} $(RUNENV) HF_HUB_OFFLINE=1 \
		$(BIN)/python examples/run_hier.py --config examples/configs/demo.yaml

test: $(STAMP)
	$(RUNENV) $(BIN)/python -m pytest

docs: $(STAMP)
	$(RUNENV) $(BIN)/python -m sphinx -W --keep-going docs docs/_build/html

quality: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) outputs build dist *.egg-info
