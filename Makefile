# `make` lists the targets. Everything is installed into .venv by the first target that needs it.

PYTHON ?= python3
WORKERS ?= 2
QUICKSTART_FLAGS ?=
DEMO_FLAGS ?=

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
QUICKSTART := quickstart
QUICKSTART_RECORDS := $(QUICKSTART)/records/dataset.json

# What `make smoke-NAME` makes of raw data and of records, for each data set; and the records that
# another model than STCN is tried on.
DATA_SETS := iamondb deepwriting ink timit blizzard wav mnist
MODELS := rnn vrnn srnn z_forcing variational_bi_lstm swavenet f_srnn
SMOKE := $(DATA_SETS) $(MODELS)
RECORDS_rnn := iamondb
RECORDS_vrnn := iamondb
RECORDS_srnn := timit
RECORDS_z_forcing := timit
RECORDS_variational_bi_lstm := mnist
RECORDS_swavenet := iamondb
RECORDS_f_srnn := timit
RAW_iamondb := --format=iamondb --num_forms=12
RAW_deepwriting := --format=deepwriting --num_forms=12
RAW_ink := --format=inkml --num_forms=12
RAW_timit := --format=timit
RAW_blizzard := --format=blizzard
RAW_wav := --format=wav
RAW_mnist := --format=mnist_amat --image_size=10
PREPARE_iamondb := --source=smoke/raw/iamondb --split=smoke/raw/iamondb/splits
PREPARE_deepwriting := --source=smoke/raw/deepwriting
PREPARE_ink := --source=smoke/raw/ink/ink
PREPARE_timit := --source=smoke/raw/timit --split=smoke/raw/timit/lists --sequences_multiple=1
PREPARE_blizzard := --source=smoke/raw/blizzard/audio --split=0.8,0.1,0.1 --files_per_group=4 \
    --num_streams=3
PREPARE_wav := --source=smoke/raw/wav/audio
PREPARE_mnist := --source=smoke/raw/mnist

# The small tables: where the records of data sets are, the minutes of training that each row has,
# the rows (separated by commas; all), and where all goes. Which data sets, rows and figures each has.
RECORDS ?= smoke/records
MINUTES ?= 0.1
ROWS ?=
TABLES ?= $(if $(filter smoke/records,$(RECORDS)),tables/synthetic,tables)
TABLE_NAMES := table1-small table2-small table3-small
DATA_table1-small := iamondb
DATA_table2-small := mnist
DATA_table3-small := iamondb mnist
ROWS_table3-small := stcn,stcn_dense,stcn_dense_independent
FIGURES_table1-small := --figure=3
FIGURES_table2-small := --figure=4,6

SUPPORTED := import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13)

.PHONY: help browser demo quickstart smoke test test-slow benchmark lint format clean $(SMOKE:%=smoke-%) \
    $(TABLE_NAMES)
.DELETE_ON_ERROR:

help:
	@echo "make demo         a page in the browser, on which the model that comes with the package goes"
	@echo "                  on with what one writes"
	@echo "make quickstart   synthetic handwriting: prepare, train, evaluate, draw samples (minutes)"
	@echo "make smoke        every data set and model, tiny and synthetic: from raw files to samples;"
	@echo "                  make smoke-NAME: one of $(SMOKE)"
	@echo "make table1-small the models of Table 1 at a small size, for equal time, and the report; also"
	@echo "                  table2-small, table3-small. By itself on synthetic data, in minutes;"
	@echo "                  RECORDS=records MINUTES=45: on records/NAME of your own, 45 minutes each"
	@echo "make test         all tests but the slow ones (WORKERS=$(WORKERS) processes)"
	@echo "make test-slow    the slow tests"
	@echo "make browser      chromium, by which the tests try the page (Debian, as root)"
	@echo "make benchmark    speeds beside a plain transcription of the equations, under 5 minutes"
	@echo "make lint         style and format, checked"
	@echo "make format       style and format, mended"
	@echo "make clean        remove quickstart/, smoke/, tables/ and caches; .venv stays"
	@echo
	@echo "The first of them installs everything into .venv (Python 3.11 to 3.13; another than"
	@echo "python3: make PYTHON=python3.12 ...)."

# The stamp is written last, so an installation that failed or was interrupted is done again.
$(STAMP): requirements.txt setup.py
	@rm -f $@
	@if ! $(PY) -c '$(SUPPORTED); import pip' 2>/dev/null; then \
	    $(PYTHON) -c '' 2>/dev/null || { \
	        echo "error: cannot run $(PYTHON): name a Python 3.11, 3.12 or 3.13," \
	            "for example: make PYTHON=/usr/bin/python3.12" >&2; exit 1; }; \
	    $(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { \
	        echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), needed is Python 3.11, 3.12 or" \
	            "3.13, for example: make PYTHON=/usr/bin/python3.12" >&2; exit 1; }; \
	    $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	        echo "error: $(PYTHON) cannot make virtual environments: install its venv package" \
	            "(Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }; \
	    $(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo "setting up $(VENV) (about 3 minutes, 2.4 GB)"
	@$(PY) -m pip install -qq --disable-pip-version-check --no-input -e '.[dev]' || { \
	    echo "error: the installation into $(VENV) failed, see above" >&2; exit 1; }
	@touch $@

demo: $(STAMP)
	$(PY) -m stcn_tf.serve --run_dir=pretrained/handwriting $(DEMO_FLAGS)

test: $(STAMP)
	$(PY) -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: $(STAMP)
	$(PY) -m pytest -m slow

# What the tests of the page are run in; they are skipped where there is none.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	    { echo "no browser: install chromium (Debian: apt install chromium)" >&2; exit 1; }

benchmark: $(STAMP)
	$(PY) -m stcn_tf.benchmark --out=benchmark.json

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# The records appear in one piece, at the end. What was trained on older ones goes with them.
$(QUICKSTART_RECORDS): $(wildcard data_prep/*.py data_prep/*/*.py) experiments/quickstart.flags | $(STAMP)
	rm -rf $(QUICKSTART)
	$(PY) -m data_prep.synthetic --out=$(QUICKSTART)/raw
	$(PY) -m data_prep.iamondb --source=$(QUICKSTART)/raw --split=$(QUICKSTART)/raw/splits \
	    --normalization=channel --out=$(QUICKSTART)/records
	@touch $@

quickstart: $(QUICKSTART_RECORDS)
	$(PY) -m stcn_tf.train --flagfile=experiments/quickstart.flags \
	    --data=$(QUICKSTART)/records --run_dir=$(QUICKSTART)/run $(QUICKSTART_FLAGS)
	$(PY) -m stcn_tf.evaluate --run_dir=$(QUICKSTART)/run --data=$(QUICKSTART)/records
	$(PY) -m stcn_tf.sample --run_dir=$(QUICKSTART)/run --out=$(QUICKSTART)/samples
	@echo
	@echo "Made in $(QUICKSTART)/, from synthetic handwriting:"
	@echo "  raw/       pen strokes in the XML format of IAM-OnDB, with their split"
	@echo "  records/   the data set the model reads; dataset.json describes it"
	@echo "  run/       configuration, checkpoints, TensorBoard events"
	@echo "  samples/   handwriting by the model: samples.png, samples.svg, samples.h5"
	@echo "Next: look at the curves:   $(VENV)/bin/tensorboard --logdir=$(QUICKSTART)/run"
	@echo "      train on IAM-OnDB:    README.md says where it comes from and which command;"
	@echo "                            experiments/iamondb.flags is the paper's model"

smoke: $(SMOKE:%=smoke-%)

smoke/records/%/dataset.json: $(wildcard data_prep/*.py data_prep/*/*.py) | $(STAMP)
	rm -rf smoke/raw/$* smoke/records/$*
	$(PY) -m data_prep.synthetic $(RAW_$*) --out=smoke/raw/$*
	$(PY) -m data_prep.$* $(PREPARE_$*) --out=smoke/records/$*
	$(PY) -m data_prep.show smoke/records/$*
	@touch $@

.SECONDEXPANSION:
$(SMOKE:%=smoke-%): smoke-%: smoke/records/$$(or $$(RECORDS_$$*),$$*)/dataset.json
	rm -rf smoke/runs/$* smoke/samples/$*
	$(PY) -m stcn_tf.train --flagfile=experiments/smoke/$*.flags --run_dir=smoke/runs/$*
	$(PY) -m stcn_tf.evaluate --run_dir=smoke/runs/$* --data=$(<D)
	$(PY) -m stcn_tf.sample --run_dir=smoke/runs/$* --out=smoke/samples/$*
	$(PY) -m stcn_tf.reconstruct --run_dir=smoke/runs/$* --data=$(<D) --out=smoke/samples/$*

# Each data set in a folder of its own, which tables share.
$(TABLE_NAMES): %: $$(if $$(filter smoke/records,$(RECORDS)),$$(addsuffix /dataset.json,\
    $$(addprefix smoke/records/,$$(DATA_$$*)))) | $(STAMP)
	$(foreach name,$(DATA_$*),$(PY) -m stcn_tf.reproduce --data=$(RECORDS)/$(name) \
	    --out=$(TABLES)/$(name) --minutes=$(MINUTES) --rows=$(or $(ROWS),$(ROWS_$*)) &&) true
	$(PY) -m stcn_tf.report --out=$(TABLES)/$* --table=$(*:table%-small=%) $(FIGURES_$*) \
	    --runs=$(shell echo $(DATA_$*:%=$(TABLES)/%/runs) | tr ' ' ,)

clean:
	rm -rf $(QUICKSTART) smoke tables build dist .pytest_cache .ruff_cache *.egg-info
	find stcn_tf data_prep tests -name __pycache__ -type d -prune -exec rm -rf {} +
