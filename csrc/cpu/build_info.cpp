// The facts about the CPU library that `fastgan info` prints.
#include <string>

#include "../stable.h"
#include "clones.h"

namespace fastgan {
namespace {

std::string cpu_capability_name() { return cpu_capability(); }

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_FRAGMENT(fastgan, library) { library.def("cpu_capability() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(fastgan, CompositeExplicitAutograd, library) {
  library.impl("cpu_capability", TORCH_BOX(&fastgan::cpu_capability_name));
}
