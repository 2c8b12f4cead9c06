"""`Model.map`: sequences of varying lengths, padded into batches."""
