"""`Pool`: one step of many independent streams in one run of the model."""
