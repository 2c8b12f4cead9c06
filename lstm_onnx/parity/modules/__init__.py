"""The verification of a file against any module."""
