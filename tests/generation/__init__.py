"""Files that generate."""
