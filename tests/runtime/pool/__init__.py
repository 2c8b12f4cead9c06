"""Tests of runtime/pool.py."""
