/* SPDX-License-Identifier: GPL-2.0-or-later
   The contract of the file is described in dtmd/artefact.py; the names below mirror it. */

#include "potential.h"

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

namespace {

constexpr const char *FORMAT = "1";

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

}    // namespace

namespace dtmd {

struct Potential::Module {
  torch::jit::Module script;
  torch::Device device;
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
}

void Potential::evaluate(const Graph &graph, Evaluation &evaluation)
{
  const auto n_atoms = static_cast<int64_t>(graph.n_atoms());
  const auto n_edges = static_cast<int64_t>(graph.n_edges());
  const torch::Device &device = module->device;
  // TorchScript's optimiser would change the plan, and with it the rounding, during the first steps,
  // and on a GPU compile fused kernels for ever new numbers of edges. Without it an EGNN on 57 atoms
  // runs some 10 % faster on the CPU, and the first steps take no longer than the others.
  torch::jit::GraphOptimizerEnabledGuard no_optimiser(false);
  try {
    torch::Tensor species = view(graph.species, {n_atoms}, torch::kInt64).to(device);
    torch::Tensor edge_index = torch::stack({view(graph.sources, {n_edges}, torch::kInt64),
                                             view(graph.targets, {n_edges}, torch::kInt64)}).to(device);
    torch::Tensor edge_vec = view(graph.vectors, {n_edges, 3}, torch::kFloat64).to(device);
    edge_vec.requires_grad_();

    torch::Tensor energies = module->script.forward({species, edge_index, edge_vec}).toTensor();
    if (energies.dim() != 1 || energies.size(0) != n_atoms)
      throw std::runtime_error("the model does not return one energy for each atom");
    copy(energies, evaluation.energies);

    evaluation.gradients.clear();
    if (n_edges == 0) return;    // atoms out of each other's reach feel no force
    copy(torch::autograd::grad({energies.sum()}, {edge_vec})[0], evaluation.gradients);
  } catch (const std::exception &error) {
    throw std::runtime_error("the potential failed: " + message_of(error));
  }
}

}    // namespace dtmd
