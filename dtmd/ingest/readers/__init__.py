"""One reader per kind of output; each module with a `FORMAT` is one, the others are what readers share."""
