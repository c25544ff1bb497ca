#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>

// A minimal test framework: prints the check that failed, and exits with status 1.
#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

#define CHECK_CLOSE(actual, expected, tolerance)                                                                    \
  do {                                                                                                              \
    const double actual_ = (actual), expected_ = (expected);                                                        \
    if (!(std::fabs(actual_ - expected_) <= (tolerance))) {                                                         \
      std::fprintf(stderr, "%s:%d: %s = %.17g, expected %.17g\n", __FILE__, __LINE__, #actual, actual_, expected_); \
      std::exit(1);                                                                                                 \
    }                                                                                                               \
  } while (false)
