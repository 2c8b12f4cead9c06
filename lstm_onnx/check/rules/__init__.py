"""The rules of `check`, one file a family."""
