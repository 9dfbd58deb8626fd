/* SPDX-License-Identifier: GPL-2.0-or-later
   Code in TorchScript, differentiated by autograd. */

#include "code.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

namespace dtmd {
namespace {

Tensors joined(Tensors first, const Tensors &second)
{
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// The same values, where a graph of autograd ends.
Tensors leaves(const Tensors &tensors)
{
  Tensors cut;
  for (const auto &tensor : tensors)
    cut.push_back(tensor.detach().requires_grad_(tensor.is_floating_point()));
  return cut;
}

// Gradients by the inputs, given those by the outputs.
Tensors gradients(const Tensors &outputs, const Tensors &by_outputs, const Tensors &inputs)
{
  Tensors roots, by_roots;
  for (size_t k = 0; k < outputs.size(); k++)
    if (by_outputs[k].defined() && outputs[k].requires_grad()) {
      roots.push_back(outputs[k]);
      by_roots.push_back(by_outputs[k]);
    }
  if (roots.empty()) return Tensors(inputs.size());
  return torch::autograd::grad(roots, inputs, by_roots, std::nullopt, false, /*allow_unused=*/true);
}

class TorchScript : public Code {
 public:
  TorchScript(const std::string &path, const std::string &device, int n_layers) :
      module(torch::jit::load(path, torch::Device(device))), n_layers(n_layers)
  {
    module.eval();
    for (torch::Tensor parameter : module.parameters()) parameter.requires_grad_(false);
  }

  void begin(const Inputs &inputs, int n_pieces) override
  {
    given = inputs;
    pieces.assign(n_pieces, {});
  }

  // The graph of autograd is cut between the pieces, and swept back piece by piece from the calling thread: for a
  // GPU, autograd has a thread of its own, from which MPI must not be called.
  Features forward(int k, const Features &before) override
  {
    // TorchScript's optimiser would change the plan, and with it the rounding, during the first steps,
    // and on a GPU compile fused kernels for ever new numbers of edges. Without it an EGNN on 57 atoms
    // runs some 10 % faster on the CPU, and the first steps take no longer than the others.
    torch::jit::GraphOptimizerEnabledGuard no_optimiser(false);
    Piece &piece = pieces[k];
    piece.before = {leaves(before.nodes), leaves(before.edges)};
    Features features = piece.before;
    const int n_pieces = pieces.size();
    if (k == 0) features = call("embed", {given.species, given.edge_index, features.edges[0]});
    const int64_t n_atoms = given.own_species.size(0);
    for (int layer = k; layer < (k == n_pieces - 1 ? n_layers : k + 1); layer++)
      features = call("layer", {layer, n_atoms, given.species, given.edge_index, features.nodes, features.edges});
    if (k == n_pieces - 1)
      features = {{module.get_method("energies")({given.own_species, features.nodes}).toTensor()}, {}};
    piece.after = joined(features.nodes, features.edges);
    return features;
  }

  Features backward(int k, const Features &by_after) override
  {
    const Piece piece = std::exchange(pieces[k], {});    // its graph goes when this function returns
    const bool is_last = k == static_cast<int>(pieces.size()) - 1;
    const Tensors by_outputs = is_last ? Tensors{torch::ones_like(piece.after[0])}
                                       : joined(by_after.nodes, by_after.edges);
    const Tensors found = gradients(piece.after, by_outputs, joined(piece.before.nodes, piece.before.edges));
    const auto middle = found.begin() + piece.before.nodes.size();
    return {Tensors(found.begin(), middle), Tensors(middle, found.end())};
  }

 private:
  struct Piece {
    Features before;
    Tensors after;
  };

  torch::jit::Module module;
  int n_layers;
  Inputs given;
  std::vector<Piece> pieces;

  Features call(const char *method, std::vector<torch::IValue> arguments)
  {
    const auto result = module.get_method(method)(std::move(arguments)).toTuple();
    return {result->elements()[0].toTensorVector(), result->elements()[1].toTensorVector()};
  }
};

}    // namespace

std::unique_ptr<Code> load_torchscript(const std::string &path, const std::string &device, int n_layers)
{
  return std::make_unique<TorchScript>(path, device, n_layers);
}

}    // namespace dtmd
