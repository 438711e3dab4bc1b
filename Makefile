PYTHON  ?= python3
PROFILE ?= laptop
DEVICE  ?= cpu
WORKERS ?= 2
BIN     := .venv/bin
SHARED  := -n logical --dist loadfile
comma   := ,

.PHONY: book lint test bench clean distclean

book: .venv/.ready
	$(BIN)/companion build --profile $(PROFILE) --device $(DEVICE) --workers $(WORKERS)

lint: .venv/.ready # which pre-commit calls too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for page in notebooks/*.md; do \
		notebook="$(BIN)/jupytext --quiet --to ipynb --output - $$page"; \
		$$notebook | $(BIN)/ruff check --stdin-filename $$page.ipynb - || exit 1; \
		$$notebook | $(BIN)/ruff format --check --stdin-filename $$page.ipynb - || exit 1; \
	done

# Cheap first: style, the library, then the book at toy size and what is said about it.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest $(SHARED) --ignore tests/test_site.py # the problems are small
	$(BIN)/companion build --profile smoke --workers 2
	$(BIN)/pytest -n logical --dist loadgroup tests/test_site.py
	OMP_NUM_THREADS=1 $(BIN)/pytest $(SHARED) --nbval-lax book/sections/*.ipynb
	$(BIN)/companion check --profile smoke

# otlib beside its peers on one CPU thread or on a GPU, its two minimisers, and what a sweep costs beside its notebook's
# cells; a quiet machine gives the better numbers.
bench: .venv/.bench-$(DEVICE) .venv-jax/.ready
	OMP_NUM_THREADS=1 BENCH_JAX_PYTHON=.venv-jax/bin/python \
		$(BIN)/python -m benchmarks.bench --device $(DEVICE) --out book/archive/solver-$(DEVICE).json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.minimisers --out benchmarks/minimisers.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sweep --out benchmarks/sweep.json

.venv/.bench-cpu .venv/.bench-cuda: .venv/.bench-%: .venv/.ready
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,bench$(if $(filter cuda,$*),$(comma)bench-cuda)]'
	touch $@

# apart: the jax that ott-jax works with is not to disturb the rest
.venv-jax/.ready: benchmarks/ott-jax.txt
	$(PYTHON) -m venv .venv-jax
	.venv-jax/bin/python -m pip install --quiet -r benchmarks/ott-jax.txt
	touch $@

# The stamp is written last, so an interrupted installation is taken up again.
.venv/.ready: pyproject.toml constraints.txt carried.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps -r carried.txt
	touch $@

clean: # everything generated but the environment
	rm -rf .companion _build book/_build book/sections *.egg-info \
		.pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -path './.venv*' -prune -o -name __pycache__ -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-jax
