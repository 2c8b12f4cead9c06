"""Tests of runtime/session.py."""
