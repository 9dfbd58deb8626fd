/* -*- c++ -*- SPDX-License-Identifier: GPL-2.0-or-later
   The code of an exported potential, in one piece or in pieces between which ranks exchange nodes. */

#ifndef DTMD_CODE_H
#define DTMD_CODE_H

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

namespace dtmd {

struct Compiled;
using Tensors = std::vector<at::Tensor>;

struct Features {
  Tensors nodes, edges;
};

// The graph of one evaluation, on the device of the code.
struct Inputs {
  at::Tensor species, own_species;    // of all nodes, and of the own atoms, which come first
  at::Tensor edge_index, edge_vec;
};

class Code {
 public:
  virtual ~Code() = default;

  // Begins an evaluation in so many pieces: one, or one for each layer.
  virtual void begin(const Inputs &inputs, int n_pieces) = 0;

  // Nodes and edges after a piece from those before it: before the first no nodes and the edge vectors, after the
  // last the energies of the own atoms and nothing.
  virtual Features forward(int piece, const Features &before) = 0;

  // From the last piece to the first: gradients of the sum of all energies by what the piece was given, from those by
  // what it gave, of which the last needs none. Undefined tensors are zero.
  virtual Features backward(int piece, const Features &by_after) = 0;
};

// Both throw when the file is damaged.
std::unique_ptr<Code> load_torchscript(const std::string &path, const std::string &device, int n_layers);
std::unique_ptr<Code> load_aotinductor(const std::string &path, const Compiled &compiled, bool with_pieces);

}    // namespace dtmd

#endif
