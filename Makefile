# BH Studio from a checkout, on Linux with python3 and make:
#
#   make run     opens the window with the embedded model; ARGS="--prompt 'Hello' --run" adds options
#   make test    runs every check
#
# Both make .venv and bring it up to date with pyproject.toml and constraints.txt first. On Debian
# and as root they also install the system libraries that Qt lacks; elsewhere they name them.
# PYTHON=/path/to/python3.12 chooses the Python, VENV=folder the environment.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

.PHONY: run test static suite

run:
	@command -v "$(PYTHON)" >/dev/null || { echo "make run needs python3 (3.11 to 3.13)." >&2; exit 1; }
	@"$(PYTHON)" tools/environment.py --venv "$(VENV)" --screen
	@"$(VENV)/bin/bh-studio" $(ARGS)

# The static checks need a core for a minute, each process of the tests one thread: side by side.
test:
	@command -v "$(PYTHON)" >/dev/null || { echo "make test needs python3 (3.11 to 3.13)." >&2; exit 1; }
	@"$(PYTHON)" tools/environment.py --venv "$(VENV)" --test
	@$(MAKE) --no-print-directory --jobs=2 static suite

static:
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/lint-imports"
	"$(VENV)/bin/mypy"

# Some machines forbid bytecode; the many processes that the tests start would all compile again.
suite:
	PYTHONDONTWRITEBYTECODE= "$(VENV)/bin/python" -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
