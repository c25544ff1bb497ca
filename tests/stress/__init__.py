"""Many random calls of everything public; a short seeded part runs as tests, the long form by `make stress`."""
