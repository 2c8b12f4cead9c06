"""Tests of runtime/map.py."""
