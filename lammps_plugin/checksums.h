/* -*- c++ -*- SPDX-License-Identifier: GPL-2.0-or-later
   Torch does not compare the files in an archive with their checksums, so that damaged weights would be used. */

#ifndef DTMD_CHECKSUMS_H
#define DTMD_CHECKSUMS_H

#include <string>

namespace dtmd {

// Throws std::runtime_error that names a damaged file in an archive of torch.
void raise_if_damaged(const std::string &path);

}    // namespace dtmd

#endif
