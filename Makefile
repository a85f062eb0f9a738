# Two commands on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DIR ?= build/demo
export HF_HUB_OFFLINE = 1

.PHONY: demo test test-lowest check format clean

# A stamp instead of the folder: a half-finished installation is repeated.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "autotl needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Fit scikit-learn's handwritten digits with the embedded weights, then predict two images of the test split.
demo: $(VENV)/.installed
	rm -rf $(DEMO_DIR)
	$(BIN)/autotl example digits $(DEMO_DIR)/digits
	$(BIN)/autotl fit $(DEMO_DIR)/digits --timeout 3m30s --output $(DEMO_DIR)/run
	$(BIN)/autotl predict $(DEMO_DIR)/run $$(ls $(DEMO_DIR)/digits/test/3/*.png | head -2)

test: $(VENV)/.installed
	$(BIN)/python -m pytest

# The unit and contract tests with the lowest versions that pyproject.toml allows; torch's is downloaded (several GB).
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) .ci/lowest.py > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint $(VENV)-lowest/constraints.txt --editable '.[dev]'
	$(VENV)-lowest/bin/python -m pytest tests/unit tests/contract

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
