"""The science: each stage is a plain function, records in, records out."""
