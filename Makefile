# make            what there is
# make run A=CA5_vit PROFILE=tiny
.DEFAULT_GOAL := help
.PHONY: help run test lab lint lock sync execute readme bench

PYTHON := .venv/bin/python
PROFILE ?= $(or $(NNDL_PROFILE),demo)
A ?=
T ?=

# One thread a process: on shared cores a second thread makes small networks slower, not faster.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

help:
	@echo "make run [A=CA5_vit] [PROFILE=tiny|demo|full]   run one assignment, or all; pages in _build/index.html"
	@echo "make test [T='-k resume']                        every notebook (tiny) and every test, two processes"
	@echo "make lab                                         JupyterLab"
	@echo "make bench                                       speed against the libraries"
	@echo "make lint                                        ruff on code and notebooks"
	@echo "for maintainers:"
	@echo "make execute A=CA5_vit                           run the committed notebooks again (demo), clean their bytes"
	@echo "make readme                                      write the results tables from the run records"
	@echo "make sync                                        copy lab.py from CA5_vit to the other assignments"
	@echo "make lock                                        requirements.in to requirements.txt"

.venv/ready: requirements.txt
	@sh setup.sh

run: .venv/ready
	@$(PYTHON) course.py run $(A) --profile $(PROFILE)

execute: .venv/ready
	@$(PYTHON) course.py execute $(A)

readme sync: .venv/ready
	@$(PYTHON) course.py $@

test: .venv/ready
	$(PYTHON) -m pytest -n 2 -p no:benchmark --nbmake --nbmake-timeout=600 \
		tests --ignore=tests/benchmarks $(wildcard CA*/*.ipynb) $(T)

bench: .venv/ready
	$(PYTHON) -m pytest tests/benchmarks -o python_files="bench_*.py test_*.py" \
		--benchmark-columns=min,median,iqr,rounds --benchmark-group-by=group --benchmark-sort=mean $(T)

lab: .venv/ready
	$(PYTHON) -m jupyter lab

lint: .venv/ready
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check

lock: .venv/ready
	.venv/bin/uv pip compile --quiet --python $(PYTHON) --custom-compile-command "make lock" \
		requirements.in --output-file requirements.txt
