"""`Model.map`: runs sequences of varying lengths, padded into batches."""
