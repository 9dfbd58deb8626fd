/* SPDX-License-Identifier: GPL-2.0-or-later
   The contract of the file is described in dtmd/artefact.py; the names below mirror it. */

#include "potential.h"

#include "checksums.h"

#include <ATen/Parallel.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/cuda.h>
#include <torch/script.h>
#include <torch/version.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

#ifdef __GLIBC__
#include <malloc.h>
#endif

using caffe2::serialize::PyTorchStreamReader;
using Tensors = std::vector<torch::Tensor>;

namespace {

constexpr const char *FORMAT = "2";

std::string message_of(const std::exception &error)
{
  auto *torch_error = dynamic_cast<const c10::Error *>(&error);
  return torch_error ? torch_error->what_without_backtrace() : error.what();
}

std::string read_label(PyTorchStreamReader &archive, const std::string &name)
{
  auto [data, size] = archive.getRecord("extra/dtmd/" + name);
  return {static_cast<const char *>(data.get()), size};
}

template <typename T> std::vector<T> split(const std::string &text)
{
  std::istringstream words(text);
  return {std::istream_iterator<T>(words), std::istream_iterator<T>()};
}

// A tensor that looks into a buffer; torch only reads from it.
template <typename T>
torch::Tensor view(const std::vector<T> &data, at::IntArrayRef shape, at::ScalarType type)
{
  return torch::from_blob(const_cast<T *>(data.data()), shape, type);
}

void copy(const torch::Tensor &tensor, std::vector<double> &data)
{
  torch::Tensor host = tensor.detach().to(torch::kCPU, torch::kFloat64).contiguous();
  const double *begin = host.data_ptr<double>();
  data.assign(begin, begin + host.numel());
}

// What is computed between two exchanges, cut off from what came before.
struct Segment {
  Tensors nodes, edges;    // the inputs
  Tensors outputs;         // nodes and edges of the next segment, or the energy
};

// The same values, where a graph of autograd ends.
Tensors leaves(const Tensors &tensors)
{
  Tensors cut;
  for (const auto &tensor : tensors) cut.push_back(tensor.detach().requires_grad_(tensor.requires_grad()));
  return cut;
}

Tensors joined(Tensors first, const Tensors &second)
{
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// Gradients by the inputs, given those by the outputs; undefined tensors are zero.
Tensors backward(const Tensors &outputs, const Tensors &gradients, const Tensors &inputs)
{
  Tensors roots, by_roots, wanted, result(inputs.size());
  for (size_t k = 0; k < outputs.size(); k++)
    if (gradients[k].defined() && outputs[k].requires_grad()) {
      roots.push_back(outputs[k]);
      by_roots.push_back(gradients[k]);
    }
  if (roots.empty()) return result;
  for (const auto &input : inputs)
    if (input.requires_grad()) wanted.push_back(input);
  const Tensors found =
      torch::autograd::grad(roots, wanted, by_roots, std::nullopt, false, /*allow_unused=*/true);
  for (size_t k = 0, next = 0; k < inputs.size(); k++)
    if (inputs[k].requires_grad()) result[k] = found[next++];
  return result;
}

// All numbers of each node in a row, for the exchange.
std::vector<double> rows_of(const Tensors &nodes, const Tensors &like)
{
  Tensors columns;
  for (size_t k = 0; k < nodes.size(); k++) {
    const auto values = nodes[k].defined() ? nodes[k].detach() : torch::zeros_like(like[k]);
    columns.push_back(values.reshape({values.size(0), -1}).to(torch::kFloat64));
  }
  std::vector<double> rows;
  copy(torch::cat(columns, 1), rows);
  return rows;
}

// The inverse: n_rows rows from the given one on, in the shapes and types of the nodes.
Tensors nodes_of(const std::vector<double> &rows, int64_t first, int64_t n_rows, int64_t width, const Tensors &like)
{
  const auto all = torch::from_blob(const_cast<double *>(rows.data()) + first * width, {n_rows, width},
                                    torch::kFloat64);
  Tensors nodes;
  int64_t column = 0;
  for (const auto &tensor : like) {
    auto shape = tensor.sizes().vec();
    const int64_t size = tensor[0].numel();
    shape[0] = n_rows;
    nodes.push_back(all.narrow(1, column, size).reshape(shape).to(tensor.options(), false, /*copy=*/true));
    column += size;
  }
  return nodes;
}

// Own atoms' nodes -> with those of the other ranks' atoms behind them.
Tensors with_others(const Tensors &own, int64_t n_nodes, int width, dtmd::Exchange *exchange)
{
  const int64_t n_atoms = own[0].size(0);
  std::vector<double> rows = rows_of(own, own);
  if (rows.size() != static_cast<size_t>(n_atoms * width))
    throw std::runtime_error("the nodes of the model are not as wide as its file says");
  rows.resize(n_nodes * width);
  exchange->from_owners(rows, width);
  Tensors nodes = nodes_of(rows, n_atoms, n_nodes - n_atoms, width, own);
  for (size_t k = 0; k < own.size(); k++) nodes[k] = torch::cat({own[k], nodes[k]});
  return nodes;
}

// And back: gradients by all nodes -> by the own atoms', other ranks' share included.
Tensors by_own(const Tensors &gradients, const Tensors &nodes, int64_t n_atoms, int width, dtmd::Exchange *exchange)
{
  std::vector<double> rows = rows_of(gradients, nodes);
  exchange->to_owners(rows, width);
  return nodes_of(rows, 0, n_atoms, width, nodes);
}

}    // namespace

namespace dtmd {

struct Potential::Module {
  torch::jit::Module script;
  torch::Device device;

  std::pair<Tensors, Tensors> nodes_and_edges(const char *method, std::vector<torch::IValue> arguments)
  {
    const auto result = script.get_method(method)(std::move(arguments)).toTuple();
    return {result->elements()[0].toTensorVector(), result->elements()[1].toTensorVector()};
  }
};

void prepare_process(int n_threads)
{
  at::set_num_threads(n_threads);
#ifdef __GLIBC__
  // Each step frees and asks again for the same few MB. Not giving them back to the system in
  // between saves some 5 % of the time of a step.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

std::string choose_device(const std::string &wish, int rank)
{
  const bool has_gpu = torch::cuda::is_available();
  if (wish == "cuda" && !has_gpu)
    throw std::runtime_error(
        "device cuda was asked for, but torch " TORCH_VERSION " sees no GPU; write `device cpu`, or install "
        "a CUDA build of torch and run: dtmd build-plugin");
  if (wish == "cpu" || !has_gpu) return "cpu";
  return "cuda:" + std::to_string(rank % torch::cuda::device_count());
}

Potential::Potential(const std::string &path, const std::string &device)
{
  read_labels(path);
  try {
    raise_if_damaged(path);
    const torch::Device where(device);
    module = std::make_unique<Module>(Module{torch::jit::load(path, where), where});
    module->script.eval();
    for (torch::Tensor parameter : module->script.parameters()) parameter.requires_grad_(false);
  } catch (const std::exception &error) {
    throw std::runtime_error(path + ": damaged: " + message_of(error) +
                             "\nWrite it again with: dtmd export model.pt");
  }
}

Potential::~Potential() = default;

// The labels are read before the module, so that no code of a foreign file is ever loaded.
void Potential::read_labels(const std::string &path)
{
  if (!std::ifstream(path))
    throw std::runtime_error(path + ": cannot be opened; write it with: dtmd export model.pt");
  std::unique_ptr<PyTorchStreamReader> archive;
  try {
    archive = std::make_unique<PyTorchStreamReader>(path);
  } catch (const c10::Error &) {
    throw std::runtime_error(path + ": cut short, or not a potential; write it again with: "
                             "dtmd export model.pt");
  }
  if (!archive->hasRecord("extra/dtmd/format"))
    throw std::runtime_error(path + " was not written by `dtmd export`. If it is a trained model, run: "
                             "dtmd export " + path);
  if (const std::string format = read_label(*archive, "format"); format != FORMAT)
    throw std::runtime_error(path + ": format " + format + ", this plugin reads format " + FORMAT +
                             "; export the model again: dtmd export model.pt");
  elements = split<std::string>(read_label(*archive, "elements"));
  masses = split<double>(read_label(*archive, "masses"));
  cutoff = std::stod(read_label(*archive, "cutoff"));
  dtype = read_label(*archive, "dtype");
  per_atom_energy = read_label(*archive, "per_atom_energy") == "yes";
  exchanged = split<int>(read_label(*archive, "exchanged"));
  if (archive->hasRecord("extra/dtmd/closest")) closest = split<double>(read_label(*archive, "closest"));
}

// The graph of autograd is cut where nodes are exchanged, and swept back piece by piece from this thread: for a
// GPU, autograd has a thread of its own, from which MPI must not be called.
void Potential::evaluate(const Graph &graph, Evaluation &evaluation, Exchange *exchange)
{
  const auto n_atoms = static_cast<int64_t>(graph.n_atoms), n_nodes = static_cast<int64_t>(graph.n_nodes());
  const auto n_edges = static_cast<int64_t>(graph.n_edges());
  const int n_layers = exchanged.size() + 1;
  evaluation = {};
  if (n_atoms == 0) return evaluate_nothing(exchange);
  const torch::Device &device = module->device;
  // TorchScript's optimiser would change the plan, and with it the rounding, during the first steps,
  // and on a GPU compile fused kernels for ever new numbers of edges. Without it an EGNN on 57 atoms
  // runs some 10 % faster on the CPU, and the first steps take no longer than the others.
  torch::jit::GraphOptimizerEnabledGuard no_optimiser(false);
  try {
    const torch::Tensor species = view(graph.species, {n_nodes}, torch::kInt64).to(device);
    const torch::Tensor edge_index = torch::stack({view(graph.sources, {n_edges}, torch::kInt64),
                                                   view(graph.targets, {n_edges}, torch::kInt64)}).to(device);
    torch::Tensor edge_vec = view(graph.vectors, {n_edges, 3}, torch::kFloat64).to(device);
    edge_vec.requires_grad_();

    auto [nodes, edges] = module->nodes_and_edges("embed", {species, edge_index, edge_vec});
    std::vector<Segment> segments{{{}, {edge_vec}, {}}};
    for (int k = 0; k < n_layers; k++) {
      if (k > 0 && exchange) {
        segments.back().outputs = joined(nodes, edges);
        nodes = leaves(with_others(nodes, n_nodes, exchanged[k - 1], exchange));
        edges = leaves(edges);
        segments.push_back({nodes, edges, {}});
      }
      std::tie(nodes, edges) =
          module->nodes_and_edges("layer", {k, n_atoms, species, edge_index, nodes, edges});
    }
    const torch::Tensor energies =
        module->script.get_method("energies")({species.narrow(0, 0, n_atoms), nodes}).toTensor();
    if (energies.dim() != 1 || energies.size(0) != n_atoms)
      throw std::runtime_error("the model does not return one energy for each atom");
    copy(energies, evaluation.energies);

    segments.back().outputs = {energies.sum()};
    Tensors gradients{torch::ones({}, energies.options())};
    while (true) {
      const Segment segment = std::move(segments.back());
      segments.pop_back();
      gradients = backward(segment.outputs, gradients, joined(segment.nodes, segment.edges));
      if (segments.empty()) break;
      const auto edges_begin = gradients.begin() + segment.nodes.size();
      const Tensors by_nodes(gradients.begin(), edges_begin), by_edges(edges_begin, gradients.end());
      const int width = exchanged[segments.size() - 1];
      gradients = joined(by_own(by_nodes, segment.nodes, n_atoms, width, exchange), by_edges);
    }
    copy(gradients[0].defined() ? gradients[0] : torch::zeros_like(edge_vec), evaluation.gradients);
  } catch (const std::exception &error) {
    throw std::runtime_error("the potential failed: " + message_of(error));
  }
}

// A rank without atoms passes on what the others exchange.
void Potential::evaluate_nothing(Exchange *exchange)
{
  if (!exchange) return;
  std::vector<double> nothing;
  for (auto width = exchanged.begin(); width != exchanged.end(); ++width) exchange->from_owners(nothing, *width);
  for (auto width = exchanged.rbegin(); width != exchanged.rend(); ++width) exchange->to_owners(nothing, *width);
}

}    // namespace dtmd
