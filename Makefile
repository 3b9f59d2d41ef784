# Every target first makes .venv, once, with the exact versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
unexport PYTHONDONTWRITEBYTECODE  # hundreds of processes start here; what one has compiled serves the next
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.PHONY: demo test tests lint recipes shipped kill fuzz schema contract diagnosis bench defects false-errors clean

demo: $(READY)  ## compares a GAN, a VAE and flow matching on handwritten digits (about 6 minutes of compute time)
	$(BIN)/bowerbird compare gan vae flow --data digits --budget 90s --out demo
	@echo "Make, train and look in the browser: $(BIN)/bowerbird studio"

test: $(READY)  ## everything that must hold before a change is merged; lint takes one core, so it runs beside the tests
	@$(MAKE) --no-print-directory --keep-going -j 2 lint tests

tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

recipes: $(READY)  ## trains every recipe and checks its [[expect]] claims (hours)
	$(BIN)/python benchmarks/recipes.py

shipped: $(READY)  ## trains the runs that ship with the package and checks their figures (about an hour of compute time)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/shipped.py

kill: $(READY)  ## kills a training process 20 times at random moments; it must end bit for bit as if left alone
	BOWERBIRD_KILLS=20 OMP_NUM_THREADS=1 $(BIN)/pytest -s tests/test_resume.py -k test_kill

fuzz: $(READY)  ## reads 2,000 damaged files of every format; each must be read, or refused in one sentence
	BOWERBIRD_FUZZ=2000 OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) tests/test_fuzz.py tests/test_damaged_runs.py

schema: $(READY)  ## more than 2,000 requests made of the server's OpenAPI document; no answer may be a 5xx
	BOWERBIRD_SCHEMA_CASES=32 OMP_NUM_THREADS=1 $(BIN)/pytest -s tests/serve/test_openapi.py

contract: $(READY)  ## the contract of families on every network, variant and kind of data; exact resume of every recipe
	BOWERBIRD_CONTRACT=all OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) tests/test_families.py tests/test_resume.py

diagnosis: $(READY)  ## trains every deliberately broken run and every recipe in small, and prints what diagnosis says
	BOWERBIRD_BROKEN_RUNS=all OMP_NUM_THREADS=1 $(BIN)/pytest -s tests/test_diagnosis.py -k confusion

bench: $(READY)  ## every benchmark against its peer
	set -e; for script in $(wildcard benchmarks/bench_*.py); do $(BIN)/python $$script; done

defects: $(READY)  ## which defects of the corpus check names at their line (about half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/defects.py --jobs $(WORKERS)

false-errors: $(READY)  ## what check calls an error in 132 unmodified files of popular repositories, cloned into CLONES
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/unmodified.py $(or $(CLONES),../clones) --list popular

clean:  ## removes caches and demo/, keeps .venv and runs/
	rm -rf demo dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@
