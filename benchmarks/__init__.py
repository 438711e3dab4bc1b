"""otlib beside its peers, on the same clouds and in one run: see `benchmarks.bench`."""
