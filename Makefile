# Every target sets up .venv by itself, and again only when pyproject.toml or constraints.txt has changed.
# torch is named on the pip command line itself: a bare or ranged torch would pull gigabytes of CUDA libraries.
PYTHON ?= python3
PRESET ?= standard
FOLDER ?=
RUNS ?= runs
HOME_OF_SERVICE ?= $(RUNS)/service
PORT ?= 8000
EVENTS ?= concert
PYTEST_ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: help run test lab serve notebooks trace clean
.DEFAULT_GOAL := help

help:
	@echo "make run        run the notebooks on the bundled concert; results in $(RUNS)/$(PRESET) (PRESET=tiny|standard|full)"
	@echo "            FOLDER=path: notebooks 1 and 2 on photos and videos of your own"
	@echo "make test       run every test, the linters and the tiny notebook series"
	@echo "make lab        open JupyterLab on the notebooks"
	@echo "make serve      start the service on this machine; its state in $(HOME_OF_SERVICE), EVENTS=concert, PORT=8000"
	@echo "make notebooks  run the notebooks and refresh the outputs committed in notebooks/ (needs Chromium)"
	@echo "make trace      print which tests and notebook cells show each row of the use case"
	@echo "make clean      remove runs and caches; .venv stays (rm -r .venv to start over)"

run: $(INSTALLED)
	$(PY) -m crowdnerf_lab.series run --preset $(PRESET) --out $(RUNS) $(if $(FOLDER),--folder "$(FOLDER)")

test: $(INSTALLED)
	$(PY) -m pytest $(PYTEST_ARGS)

lab: $(INSTALLED)
	$(PY) -m jupytext --quiet --sync notebooks/*.py
	$(PY) -m jupyterlab notebooks

serve: $(INSTALLED)
	$(PY) -m crowdnerf_lab.network --home $(HOME_OF_SERVICE) --port $(PORT) --events $(EVENTS)

notebooks: $(INSTALLED)
	$(PY) -m crowdnerf_lab.series refresh --preset $(PRESET) --out $(RUNS)

trace: $(INSTALLED)
	$(PY) -m tests.use_case

clean:
	rm -rf $(RUNS) dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; install Python 3.11 or newer, or say PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$$($(PYTHON) --version) is too old; crowdnerf_lab needs Python 3.11 or newer (PYTHON=/path/to/python3.11 make ...)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt torch==2.13.0 -e ".[lab,colmap,geometry,video,faces,network,dev]"
	@touch $@
