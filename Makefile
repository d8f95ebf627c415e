# make demo: everything from nothing to runs/demo/report.html.   make test: the tests.
PYTHON ?= $(shell for v in 3.11 3.12 3.13; do p=$$(command -v python$$v) && $$p -c "" 2>/dev/null && echo $$p && exit; done; echo python3)
PY := .venv/bin/python
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: venv demo photos test test-own-data test-install test-compat test-consumers test-faults serve-smoke soak test-official-export lock lint bench clean-demo
.DELETE_ON_ERROR:

venv: .venv/installed
.venv/installed: requirements.txt
	@$(PYTHON) -c "import sys; v=sys.version_info[:2]; sys.exit(0 if (3,11)<=v<=(3,13) else f'Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}; say make PYTHON=/path/to/python3.11')"
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

test: venv
	$(PY) -m ruff check .
	$(PY) -m pytest

# Follows docs/own_data.md, shortened; one to four minutes.
test-own-data: venv
	TFSEG_OWN_DATA=1 $(PY) -m pytest tests/test_own_data.py

# The same page by the console script of the wheel, installed with its dependencies.
test-install: venv
	rm -rf .venv-install && $(PY) -m venv .venv-install
	$(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir .venv-install/wheel .
	.venv-install/bin/python -m pip install --quiet --disable-pip-version-check .venv-install/wheel/tfseg-*.whl
	TFSEG_OWN_DATA=$(CURDIR)/.venv-install/bin/tfseg $(PY) -m pytest tests/test_own_data.py

# Environments beside the main one (tensorflow-addons with TensorFlow 2.15; PyTorch); they need Python 3.11.
test-compat: venv .venv-tfa/installed .venv-torch/installed
	$(PY) -m pytest tests/compat
.venv-tfa/installed .venv-torch/installed: .venv-%/installed: requirements-%.txt
	python3.11 -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Everything that reads an export, each in an environment of its own; prints the largest differences.
CONSUMERS := .venv-consumers
test-consumers: venv .venv-tfa/installed $(foreach e,formats beam tfx tfjs,$(CONSUMERS)/$e/installed)
	@mkdir -p runs
	TFSEG_CONSUMERS_TABLE=runs/consumers.txt $(PY) -m pytest tests/export/consumers
	@cat runs/consumers.txt
$(CONSUMERS)/%/installed: tests/export/consumers/%.txt
	@mkdir -p $(CONSUMERS)
	python3.11 -m venv $(CONSUMERS)/$*
	$(CONSUMERS)/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
$(CONSUMERS)/tfjs/installed: tests/export/consumers/tfjs.txt
	@mkdir -p $(CONSUMERS)
	python3.11 -m venv $(CONSUMERS)/tfjs
	$(CONSUMERS)/tfjs/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	npm install --silent --no-audit --no-fund --prefix $(CONSUMERS)/tfjs @tensorflow/tfjs@4.22.0 || echo "no npm: TensorFlow.js is not tested"
	@touch $@
$(CONSUMERS)/beam/installed: requirements-beam.txt
	@mkdir -p $(CONSUMERS)
	python3.11 -m venv $(CONSUMERS)/beam
	$(CONSUMERS)/beam/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# make serve-smoke URL=http://localhost:8501/v1/models/tfseg EXPORT=runs/demo/export [GRPC=localhost:8500]
serve-smoke: venv
	@test -n "$(URL)" -a -n "$(EXPORT)" || { echo "make serve-smoke URL=http://HOST:8501/v1/models/NAME EXPORT=DIR [GRPC=HOST:8500]"; exit 2; }
	TFSEG_SERVE_URL=$(URL) TFSEG_SERVE_EXPORT=$(EXPORT) $(if $(GRPC),TFSEG_SERVE_GRPC=$(GRPC)) $(PY) -m pytest tests/export/test_serving.py

# Eight threads of good and bad requests on one export.
SECONDS ?= 120
soak: venv
	TFSEG_SOAK_SECONDS=$(SECONDS) $(PY) -m pytest -s tests/export/test_soak.py

# Kills, full disks, malformed inputs: all of it, and how many there were; at most half an hour on 2 cores.
FAULTS ?= 6
test-faults: venv
	TFSEG_FAULTS=$(FAULTS) TFSEG_SOAK_SECONDS=60 $(PY) -m pytest tests/faults tests/tfrecords/test_hostile_files.py tests/export/test_soak.py

# The official network's export, each signature called once at 500x375: 9 GB of memory, some minutes.
test-official-export: venv
	TFSEG_OFFICIAL_EXPORT=1 $(PY) -m pytest -s tests/export/test_official.py

# Every package by its hash (BUILD.md); needs Python 3.11.
lock: .venv-lock/bin/uv
	.venv-lock/bin/uv pip compile requirements.txt --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --quiet --output-file requirements.lock
.venv-lock/bin/uv:
	python3.11 -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv

lint: venv
	$(PY) -m ruff check .

# Nothing else should run meanwhile; docs/PERFORMANCE.md says what to expect. PyTorch needs Python 3.11.
BENCH := runs/bench
bench: venv .venv-torch/installed
	@mkdir -p $(BENCH)
	$(PY) -m benchmarks.unpooling --output=$(BENCH)/unpooling.json
	$(PY) -m benchmarks.train_step --image_size=160 --batch_size=16 --micro_batch_size=4 --output=$(BENCH)/train_step_160.json
	$(PY) -m benchmarks.train_step --image_size=320 --batch_size=8 --micro_batch_size=2 --rounds=2 --output=$(BENCH)/train_step_320.json
	$(PY) -m benchmarks.inference --image_size=160 --output=$(BENCH)/inference.json
	$(PY) -m benchmarks.input_pipeline --output=$(BENCH)/input_pipeline.json
	$(PY) -m benchmarks.input_pipeline --drawn_size=96 --image_size=96 --resize_to=99 --batch_size=32 --preset=tiny \
	  --output=$(BENCH)/input_pipeline_96.json
	$(PY) -m benchmarks.evaluation --crf_images=4 --rounds=3 --output=$(BENCH)/evaluation.json
	$(PY) -m benchmarks.builders --output=$(BENCH)/builders.json

# The demo, each step behind the file that it writes last, so that a second run starts where the first ended.
DEMO := runs/demo
SEED ?= 1
SYNTHETIC := $(DEMO)/synthetic
RECORDS := $(DEMO)/records
MODEL := $(DEMO)/model
TRAIN := $(PY) -m tfseg.train --data_dir=$(RECORDS) --model_dir=$(MODEL) --seed=$(SEED)

demo: $(DEMO)/report.html
	@echo "open $(DEMO)/report.html"

$(SYNTHETIC)/synthetic.json: | venv
	$(PY) -m tfrecords.build_synthetic --output_dir=$(SYNTHETIC) --seed=$(SEED) \
	  --source_train=4000 --target_train=3000 --target_val=300 --target_test=500

$(RECORDS)/source_train.json: | $(SYNTHETIC)/synthetic.json
	$(PY) -m tfrecords.build_coco --annotations=$(SYNTHETIC)/coco/annotations/instances_train.json \
	  --images=$(SYNTHETIC)/coco/train --label_map=$(SYNTHETIC)/labels.json --split=source_train --output_dir=$(RECORDS)

$(RECORDS)/target_%.json: | $(SYNTHETIC)/synthetic.json
	$(PY) -m tfrecords.build_voc --voc_root=$(SYNTHETIC)/VOCdevkit/VOC2012 --split=$* --masks=SegmentationClassAug \
	  --label_map=$(SYNTHETIC)/labels.json --output_split=target_$* --output_dir=$(RECORDS)

$(RECORDS)/verify.json: | $(RECORDS)/source_train.json $(foreach s,train val test,$(RECORDS)/target_$s.json)
	$(PY) -m tfrecords.verify $(RECORDS)

$(MODEL)/%/done: | $(RECORDS)/verify.json
	$(TRAIN) --flagfile=configs/demo/$*.cfg
	@touch $@
$(MODEL)/classifier/done $(MODEL)/attention/done: | $(MODEL)/encoder/done
$(MODEL)/joint/done: | $(MODEL)/attention/done

EVALUATE := $(PY) -m tfseg.evaluate --model_dir=$(MODEL) --data_dir=$(RECORDS) --split=target_val
$(DEMO)/evaluation/%/metrics.json: | $(MODEL)/joint/done $(MODEL)/classifier/done
	$(EVALUATE) $(EVALUATE_$*) --output_dir=$(@D)
EVALUATE_ground_truth := --labels=ground_truth
EVALUATE_predicted := --labels=predicted
EVALUATE_attention := --labels=ground_truth --method=attention

$(DEMO)/export/1/saved_model.pb: | $(MODEL)/joint/done $(MODEL)/classifier/done
	$(PY) -m export.saved_model --model_dir=$(MODEL) --output_dir=$(DEMO)/export --version=1

# --crf is for figures 5 and 8; the authors' parameters are for photographs (docs/RESULTS.md).
FIGURES := $(foreach n,2 3 5 6 8,$(DEMO)/figures/figure$(n).png)
$(DEMO)/figures/figure%.png: | $(MODEL)/joint/done $(MODEL)/classifier/done
	$(PY) -m tfseg.figures --figure=$* --model_dir=$(MODEL) --data_dir=$(RECORDS) --split=target_val --count=3 \
	  --labels=ground_truth --crf=symmetric --output=$@

comma := ,
empty :=
space := $(empty) $(empty)
$(DEMO)/report.html: | $(FIGURES) $(DEMO)/evaluation/ground_truth/metrics.json $(DEMO)/evaluation/predicted/metrics.json \
  $(DEMO)/evaluation/attention/metrics.json $(DEMO)/export/1/saved_model.pb
	$(PY) -m tfseg.report --model_dir=$(MODEL) --data_dir=$(RECORDS) --split=target_val \
	  --evaluations=$(DEMO)/evaluation --export_dir=$(DEMO)/export/1 \
	  --figures=$(subst $(space),$(comma),$(strip $(FIGURES))) --recipes=configs/demo --output=$@

# Table 1 on photographs (docs/photographs.md): DATA holds source/, target/ and labels.json, TRUNK is a VGG-16.
PHOTOS := runs/photos
DATA ?= ../shared/photos
TRUNK ?= imagenet
PHOTOS_RECORDS := $(PHOTOS)/records
photos: $(PHOTOS_RECORDS)/verify.json
	$(PY) -m tfseg.experiments.table1 --data_dir=$(PHOTOS_RECORDS) --recipes=configs/photos --encoder_weights=$(TRUNK) \
	  --split=target_val --crf=none,official --seeds=$(SEED) --output_dir=$(PHOTOS)/table1

# The lists of target_fit and target_dev are ours: they cut VOC's train in two.
$(PHOTOS)/VOC2012/lists: | venv
	mkdir -p $(PHOTOS)/VOC2012/ImageSets/Segmentation
	for d in Annotations JPEGImages SegmentationClassAug; do \
	  ln -sfn $(abspath $(DATA))/target/VOCdevkit/VOC2012/$$d $(PHOTOS)/VOC2012/$$d; done
	cp configs/photos/target_fit.txt $(PHOTOS)/VOC2012/ImageSets/Segmentation/fit.txt
	cp configs/photos/target_dev.txt $(PHOTOS)/VOC2012/ImageSets/Segmentation/dev.txt
	cp $(DATA)/target/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt $(PHOTOS)/VOC2012/ImageSets/Segmentation/
	@touch $@

$(PHOTOS_RECORDS)/source_train.json: | venv
	$(PY) -m tfrecords.build_coco --annotations=$(DATA)/source/annotations/instances.json --images=$(DATA)/source/images \
	  --label_map=$(DATA)/labels.json --split=source_train --output_dir=$(PHOTOS_RECORDS)

$(PHOTOS_RECORDS)/target_%.json: | $(PHOTOS)/VOC2012/lists
	$(PY) -m tfrecords.build_voc --voc_root=$(PHOTOS)/VOC2012 --split=$* --masks=SegmentationClassAug \
	  --label_map=$(DATA)/labels.json --output_split=target_$* --output_dir=$(PHOTOS_RECORDS)

$(PHOTOS_RECORDS)/verify.json: | $(PHOTOS_RECORDS)/source_train.json $(foreach s,fit dev val,$(PHOTOS_RECORDS)/target_$s.json)
	$(PY) -m tfrecords.verify $(PHOTOS_RECORDS)

clean-demo:
	rm -rf $(DEMO)
