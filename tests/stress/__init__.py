"""Many random calls of everything public: a short seeded part as tests, the long form by `make stress`."""
