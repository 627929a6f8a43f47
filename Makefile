# make            what there is
# make run A=CA5_vit PROFILE=tiny
.DEFAULT_GOAL := help
.PHONY: help run test lab bench student grade checks mutants keep export lint lock execute readme

PYTHON := .venv/bin/python
NNDL := @$(PYTHON) -m nndl.cli
PROFILE ?= $(or $(NNDL_PROFILE),demo)
A ?=
T ?=
OUT ?=
WHY ?=
S ?=
N ?=
SOLUTIONS ?= later
NBGRADER ?=
export NNDL_WHY := $(value WHY)
ROOM := $(patsubst %/,%,$(A))

# One thread a process: on shared cores a second thread makes small networks slower, not faster.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

help:
	@echo "make run [A=CA5_vit] [PROFILE=tiny|demo|full]   run one assignment, or all; pages in _build/index.html"
	@echo "make test [A=CA5_vit] [T='-k resume']            every notebook (tiny) and every test, two processes"
	@echo "make lab [PROFILE=demo]                          JupyterLab"
	@echo "make bench [A=CA5_vit]                           speed against the libraries"
	@echo "make export A=CA5_vit OUT=folder                 one assignment that needs only public packages"
	@echo "make student [A=CA5_vit] [SOLUTIONS=withheld]    the student's edition, in student/ or OUT=folder"
	@echo "make grade S=submissions [A=CA5_vit]             grade notebooks; table and feedback in grades/ or OUT=folder"
	@echo "make lint                                        ruff on code and notebooks"
	@echo "for maintainers:"
	@echo "make execute A=CA5_vit                           run the committed notebooks again (demo), clean their bytes"
	@echo "make checks [A=CA5_vit]                          whether the exercises can be graded fairly"
	@echo "make mutants [A=CA5_vit] [N=4]                   small wrong solutions, and which of them the checks notice"
	@echo "make keep A=CA5_vit PROFILE=full WHY='...'       make a finished run the kept one, with its line in the ledger"
	@echo "make readme                                      write the results tables from the kept records"
	@echo "make lock                                        requirements.in to requirements.txt"

.venv/ready: requirements.txt pyproject.toml
	@sh setup.sh

run: .venv/ready
	$(NNDL) run $(A) --profile $(PROFILE)

execute: .venv/ready
	$(NNDL) execute $(A)

readme: .venv/ready
	$(NNDL) readme

keep: .venv/ready
	$(NNDL) keep $(A) --profile $(PROFILE)

export: .venv/ready
	$(NNDL) export $(A) --out "$(OUT)"

student: .venv/ready
	$(NNDL) student $(A) --out "$(or $(OUT),student)" --solutions "$(SOLUTIONS)" $(if $(NBGRADER),--nbgrader)

grade: .venv/ready
	$(NNDL) grade $(A) --submissions "$(S)" --out "$(or $(OUT),grades)"

checks: .venv/ready
	$(NNDL) checks $(A)

mutants: .venv/ready
	$(NNDL) mutants $(A) $(if $(N),--most $(N))

lab: .venv/ready
	$(NNDL) lab $(if $(filter-out default undefined file,$(origin PROFILE)),--profile $(PROFILE))

test: .venv/ready
	$(PYTHON) -m pytest -n 2 -p no:benchmark --nbmake --nbmake-timeout=600 \
		$(if $(A),tests/test_$(ROOM).py tests/test_notebooks.py,tests --ignore=tests/benchmarks) \
		$(wildcard $(or $(ROOM),CA*)/*.ipynb) $(T)

bench: .venv/ready
	$(PYTHON) -m pytest $(if $(A),tests/benchmarks/bench_$(ROOM).py,tests/benchmarks) \
		-o python_files="bench_*.py test_*.py" \
		--benchmark-columns=min,median,iqr,rounds --benchmark-group-by=group --benchmark-sort=mean $(T)

lint: .venv/ready
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check

# for every platform, and for the oldest Python and later ones
lock: .venv/ready
	.venv/bin/uv pip compile --quiet --universal --python-version 3.12 --python $(PYTHON) \
		--custom-compile-command "make lock (uv pip compile --universal --python-version=3.12)" \
		requirements.in --output-file requirements.txt
