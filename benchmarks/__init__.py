"""Benchmarks of every op against its peers; installed and always imported as `fastgan.bench`."""
