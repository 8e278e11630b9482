# Everything here works on a fresh machine with Python 3.10 or newer: the environment is made first.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m

.PHONY: demo test test-slow lint docs install clean

demo: install  ## the whole pipeline on generated PET/CT, about six minutes on two cores
	$(VENV)/bin/veloxseg demo

test: install lint docs  ## everything but the slow tests
	$(RUN) pytest

test-slow: install  ## the tests that take minutes
	$(RUN) pytest -m slow

lint: install
	$(RUN) ruff check src tests benchmarks models docs/conf.py docs/_ext
	$(RUN) ruff format --check src tests benchmarks models docs/conf.py docs/_ext
	$(RUN) mypy

docs: $(VENV)/.documenting  ## the site, into build/docs; needs neither PyTorch nor nnU-Net
	$(RUN) sphinx --fail-on-warning --keep-going --quiet --fresh-env --builder html docs build/docs

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --editable ".[dev]"
	touch $@

$(VENV)/.documenting: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) build demo_output demo_hippocampus
