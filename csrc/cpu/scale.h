#pragma once

#include "pixels.h"

namespace fastgan {

// target[i] = factor * source[i], rounded once to the target's dtype.
void scale(const void* source, Dtype source_dtype, double factor, void* target, Dtype target_dtype, int64_t count);

}  // namespace fastgan
