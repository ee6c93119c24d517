# Every chore is one word.
.PHONY: demo test bench lint format lock clean docs

demo:
	scripts/demo

test:
	scripts/test

bench:
	scripts/setup dev
	.venv/bin/python -m tests.bench

lint:
	scripts/setup dev
	.venv/bin/ruff format --check daemon tests scripts
	.venv/bin/ruff check daemon tests scripts
	.venv/bin/mypy

format:
	scripts/setup dev
	.venv/bin/ruff format daemon tests scripts
	.venv/bin/ruff check --fix daemon tests scripts

docs:
	scripts/setup dev
	.venv/bin/python -m scripts.docs

lock:
	scripts/setup dev
	scripts/lock

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find daemon tests scripts -name __pycache__ -prune -exec rm -rf {} +
