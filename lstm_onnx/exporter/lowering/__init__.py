"""From a traced graph to the file's: recurrent operators in the place of the opaque ones, names, older opsets."""
