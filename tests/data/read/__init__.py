"""Tests of data/read.py."""
