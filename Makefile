# Every target but gpu does the set-up it lacks. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test gpu torture docs build dev clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo VIDEO=file BOX=x,y,w,h    track the target in a box through a video"
	@echo "  make demo SEQUENCE=folder           the same for a folder with groundtruth.txt"
	@echo "  make demo ARGS=--console            play the film to a page, and pick targets there"
	@echo "  make demo ARGS=--follow             a simulated pan-tilt camera follows a car"
	@echo "  source tools/env.sh                 a shell with siamcar, tracker_node and the interfaces"

demo: build  ## track a target through the real middleware; writes pictures and a video
	@source tools/env.sh && exec python -m siamcar_ros.demo \
	  $(if $(VIDEO),--video "$(VIDEO)") $(if $(BOX),--box "$(BOX)") \
	  $(if $(SEQUENCE),--sequence "$(SEQUENCE)") $(ARGS)

test:  ## ruff, mypy and every test (ARGS: for pytest)
	@tools/test $(ARGS)

gpu:  ## tests, tracking and training on a GPU: gpu-bench/gpu.md (PYTHON; ARGS: --device, --quick ...)
	@PYTHONPATH="$(CURDIR):$$PYTHONPATH" \
	  $(or $(PYTHON),$(if $(wildcard .venv/full),.venv/bin/python,python3)) -m benchmarks.gpu $(ARGS)

torture: dev  ## try to break a running node; about 15 minutes (ARGS: --minutes, --seed)
	@source tools/env.sh && exec python tools/torture.py $(ARGS)

docs: dev  ## the API reference from the docstrings: build/docs/index.html
	@source tools/env.sh && exec python tools/docs.py

build:  ## the environment of the tracker, the interfaces and the package
	@tools/build

dev:  ## the same with PyTorch and the tools for training and tests
	@tools/build full

clean:  ## remove the build
	rm -rf build install log

distclean: clean  ## remove all that the targets made: build, environment, outputs, caches
	rm -rf .venv demo_output gpu-bench *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
