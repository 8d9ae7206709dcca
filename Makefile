# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
STRATEGY ?= base
OBJECTIVE ?= self_training

BIN := $(VENV)/bin
# Two workers, since one may hold several GiB of compiled programs; the tests of a file stay together.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder
BOX := $(BIN)/python main.py --config=configs/dattt_synth_b0.py

.PHONY: demo segment test lint clean

# The marker is newer than the files that say what to install, or the environment is made again.
$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

# Segments held-out synthetic clips of shifted appearance with the weights in the box, and compares strategies,
# which minimise the paper's objective.
demo: $(VENV)/installed
	$(BOX):depth --mode=eval --workdir=$(RUN)/eval

# Segments a clip with the weights in the box: make segment CLIP=video.mp4 [STRATEGY=ltv] [OBJECTIVE=depth].
# Self-training is what these weights gain by; the paper's objective changes little.
segment: $(VENV)/installed
	@test -n "$(CLIP)" || { echo "error: name a clip: make segment CLIP=video.mp4" >&2; exit 2; }
	clip="$(CLIP)"; clip="$${clip%/}"; \
	$(BOX):$(OBJECTIVE) --mode=segment --config.segment.input="$$clip" --config.ttt.strategy=$(STRATEGY) \
		--workdir="runs/segment/$$(basename "$$clip")"

# Tests of numbers to the last bit, and of programs as users get them, run by themselves, the others with programs
# that compile in half the time (tests/conftest.py).
test: lint
	COMPILE_QUICKLY=1 $(PYTEST) -m "not exact"
	$(PYTEST) -m exact

lint: $(VENV)/installed
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) runs
