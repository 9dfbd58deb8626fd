/* SPDX-License-Identifier: GPL-2.0-or-later
   The labels of a file, and the pieces of its code, between which ranks exchange nodes.
   The contract of the file is described in dtmd/artefact.py; the names below mirror it. */

#include "potential.h"

#include "checksums.h"
#include "code.h"

#include <ATen/Parallel.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/version.h>

#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

#ifdef __GLIBC__
#include <malloc.h>
#endif

using caffe2::serialize::PyTorchStreamReader;
using dtmd::Tensors;

namespace {

constexpr const char *FORMAT = "3";

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

// As Linux names the instructions.
bool processor_has(const std::string &instruction)
{
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream words(line);
    return std::find(std::istream_iterator<std::string>(words), {}, instruction) !=
        std::istream_iterator<std::string>();
  }
  return false;
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

// All numbers of each of so many nodes in a row, for the exchange; undefined tensors are zero, of a shape like these.
std::vector<double> rows_of(const Tensors &nodes, int64_t n_rows, const Tensors &like)
{
  Tensors columns;
  for (size_t k = 0; k < nodes.size(); k++) {
    const auto values = nodes[k].defined() ? nodes[k].detach() : torch::zeros({n_rows, like[k][0].numel()});
    columns.push_back(values.reshape({n_rows, -1}).to(torch::kFloat64));
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
  std::vector<double> rows = rows_of(own, n_atoms, own);
  if (rows.size() != static_cast<size_t>(n_atoms * width))
    throw std::runtime_error("the nodes of the model are not as wide as its file says");
  rows.resize(n_nodes * width);
  exchange->from_owners(rows, width);
  Tensors nodes = nodes_of(rows, n_atoms, n_nodes - n_atoms, width, own);
  for (size_t k = 0; k < own.size(); k++) nodes[k] = torch::cat({own[k], nodes[k]});
  return nodes;
}

// And back: gradients by all nodes -> by the own atoms', other ranks' share included.
Tensors by_own(const Tensors &gradients, const Tensors &own, int64_t n_nodes, int width, dtmd::Exchange *exchange)
{
  std::vector<double> rows = rows_of(gradients, n_nodes, own);
  exchange->to_owners(rows, width);
  return nodes_of(rows, 0, own[0].size(0), width, own);
}

}    // namespace

namespace dtmd {

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

Potential::Potential(const std::string &path, const std::string &device, bool on_several_ranks) : device(device)
{
  read_labels(path);
  const std::string command = compiled ? "dtmd export model.pt --format aotinductor" : "dtmd export model.pt";
  try {
    raise_if_damaged(path);
    code = compiled ? load_aotinductor(path, *compiled, on_several_ranks)
                    : load_torchscript(path, device, exchanged.size() + 1);
  } catch (const std::exception &error) {
    throw std::runtime_error(path + ": cannot be loaded: " + message_of(error) + "\nIf it is damaged, write it "
                             "again with: " + command);
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
  if (!archive->hasRecord("extra/dtmd/torch")) return;
  check_machine(path, read_label(*archive, "torch"), read_label(*archive, "machine"),
                split<std::string>(read_label(*archive, "instructions")));
  compiled = Compiled{split<int>(read_label(*archive, "node_tensors")),
                      split<int>(read_label(*archive, "kept_tensors"))};
}

// Whether this program and processor can run what is compiled in the file.
void Potential::check_machine(const std::string &path, const std::string &torch_version, const std::string &machine,
                              const std::vector<std::string> &instructions)
{
  const std::string remedy = "; export it here: dtmd export model.pt --format aotinductor";
  if (torch_version != TORCH_VERSION)
    throw std::runtime_error(path + ": compiled for torch " + torch_version + ", this plugin is built with torch "
                             TORCH_VERSION + remedy);
  utsname here;
  uname(&here);
  if (machine != here.machine)
    throw std::runtime_error(path + ": compiled for " + machine + ", this machine is " + here.machine + remedy);
  for (const std::string &instruction : instructions)
    if (!processor_has(instruction))
      throw std::runtime_error(path + ": compiled for processors with " + instruction + ", which this one lacks" +
                               remedy);
  if (device != "cpu")
    throw std::runtime_error(path + ": compiled for the CPU, and the device is " + device + "; write pair_style dtmd "
                             "device cpu, or: dtmd export model.pt --format torchscript");
}

void Potential::evaluate(const Graph &graph, Evaluation &evaluation, Exchange *exchange)
{
  const auto n_atoms = static_cast<int64_t>(graph.n_atoms), n_nodes = static_cast<int64_t>(graph.n_nodes());
  const auto n_edges = static_cast<int64_t>(graph.n_edges());
  const int n_pieces = exchange ? exchanged.size() + 1 : 1;
  evaluation.energies.clear();
  evaluation.gradients.clear();
  if (n_atoms == 0) return evaluate_nothing(exchange);
  try {
    const torch::Device where(device);
    Inputs inputs;
    inputs.species = view(graph.species, {n_nodes}, torch::kInt64).to(where);
    inputs.own_species = inputs.species.narrow(0, 0, n_atoms);
    inputs.edge_index = torch::stack({view(graph.sources, {n_edges}, torch::kInt64),
                                      view(graph.targets, {n_edges}, torch::kInt64)}).to(where);
    inputs.edge_vec = view(graph.vectors, {n_edges, 3}, torch::kFloat64).to(where);
    code->begin(inputs, n_pieces);

    Features features{{}, {inputs.edge_vec}};
    std::vector<Tensors> own(n_pieces);    // nodes before each piece
    for (int k = 0; k < n_pieces; k++) {
      if (k > 0) {
        own[k] = features.nodes;
        features.nodes = with_others(own[k], n_nodes, exchanged[k - 1], exchange);
      }
      features = code->forward(k, features);
    }
    const torch::Tensor energies = features.nodes.at(0);
    if (energies.dim() != 1 || energies.size(0) != n_atoms)
      throw std::runtime_error("the model does not return one energy for each atom");
    copy(energies, evaluation.energies);

    Features gradients;
    for (int k = n_pieces - 1; k >= 0; k--) {
      gradients = code->backward(k, gradients);
      if (k > 0)
        gradients.nodes = by_own(gradients.nodes, own[k], n_nodes, exchanged[k - 1], exchange);
    }
    const torch::Tensor &gradient = gradients.edges.at(0);
    copy(gradient.defined() ? gradient : torch::zeros_like(inputs.edge_vec), evaluation.gradients);
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
