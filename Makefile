# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
# The demo's own table says that adaptation costs its small network a little; better weights want mwi or ltv.
STRATEGY ?= base

BIN := $(VENV)/bin
DEMO := $(BIN)/python main.py --config=configs/demo.py

.PHONY: demo segment test lint clean

# The marker is newer than the files that say what to install, or the environment is made again.
$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

# Trains the small network on synthetic video and compares strategies on shifted, held-out clips.
demo: $(VENV)/installed
	$(DEMO) --mode=train --workdir=$(RUN)/train
	$(DEMO) --mode=eval --workdir=$(RUN)/eval --config.init=$(RUN)/train

# Segments a clip with the weights the demo made: make segment CLIP=video.mp4 [STRATEGY=mwi]
segment: $(VENV)/installed
	@test -n "$(CLIP)" || { echo "error: name a clip: make segment CLIP=video.mp4" >&2; exit 2; }
	@ls $(RUN)/train/checkpoints/*/variables >/dev/null 2>&1 || $(DEMO) --mode=train --workdir=$(RUN)/train
	clip="$(CLIP)"; clip="$${clip%/}"; \
	$(DEMO) --mode=segment --config.init=$(RUN)/train --config.segment.input="$$clip" \
		--config.ttt.strategy=$(STRATEGY) --workdir="runs/segment/$$(basename "$$clip")"

# Two workers, since one may hold several GiB of compiled programs; the tests of a file stay together.
test: lint
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) runs
