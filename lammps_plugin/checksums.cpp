/* SPDX-License-Identifier: GPL-2.0-or-later
   The format of zip archives is that of PKWARE's APPNOTE.TXT, sections 4.3.12 and 4.3.16. */

#include "checksums.h"

#include <caffe2/serialize/inline_container.h>

#include <array>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>

namespace {

uint32_t number(const std::string &bytes, size_t first, int n_bytes)
{
  uint32_t value = 0;
  for (int k = n_bytes - 1; k >= 0; k--) value = value << 8 | static_cast<unsigned char>(bytes.at(first + k));
  return value;
}

uint32_t crc32(const unsigned char *data, size_t size)
{
  static const auto table = [] {
    std::array<uint32_t, 256> entries{};
    for (uint32_t k = 0; k < 256; k++) {
      entries[k] = k;
      for (int bit = 0; bit < 8; bit++) entries[k] = entries[k] & 1 ? entries[k] >> 1 ^ 0xedb88320u : entries[k] >> 1;
    }
    return entries;
  }();
  uint32_t sum = 0xffffffffu;
  for (size_t k = 0; k < size; k++) sum = table[(sum ^ data[k]) & 0xff] ^ sum >> 8;
  return ~sum;
}

// By the name of the file in the archive, as the list at the end of the archive has them.
std::map<std::string, uint32_t> checksums(const std::string &path)
{
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const size_t end = bytes.rfind("PK\x05\x06");
  if (end == std::string::npos) throw std::out_of_range("no list of files");
  std::map<std::string, uint32_t> sums;
  size_t entry = number(bytes, end + 16, 4);
  for (uint32_t k = 0; k < number(bytes, end + 10, 2); k++) {
    const uint32_t name = number(bytes, entry + 28, 2), more = number(bytes, entry + 30, 2);
    sums[bytes.substr(entry + 46, name)] = number(bytes, entry + 16, 4);
    entry += 46 + name + more + number(bytes, entry + 32, 2);
  }
  return sums;
}

}    // namespace

void dtmd::raise_if_damaged(const std::string &path)
{
  caffe2::serialize::PyTorchStreamReader archive(path);
  for (const auto &[name, expected] : checksums(path)) {
    const auto [data, size] = archive.getRecord(name.substr(name.find('/') + 1));
    if (crc32(static_cast<const unsigned char *>(data.get()), size) != expected)
      throw std::runtime_error(name + " does not have its checksum");
  }
}
