"""Tests of runtime/batcher.py and batches.py."""
