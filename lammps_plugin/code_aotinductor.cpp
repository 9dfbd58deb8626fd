/* SPDX-License-Identifier: GPL-2.0-or-later
   Code that torch's AOTInductor has compiled: the graphs of dtmd/artefact.py, without autograd. */

#include "code.h"
#include "potential.h"

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

namespace dtmd {
namespace {

using torch::inductor::AOTIModelPackageLoader;

class AOTInductor : public Code {
 public:
  AOTInductor(const std::string &path, const Compiled &compiled, bool with_pieces) : compiled(compiled)
  {
    if (!with_pieces) {
      whole = load(path, "whole");
      return;
    }
    for (size_t k = 0; k < compiled.node_tensors.size(); k++) {
      forwards.push_back(load(path, "forward_" + std::to_string(k)));
      backwards.push_back(load(path, "backward_" + std::to_string(k)));
    }
    last = load(path, "last");
  }

  void begin(const Inputs &inputs, int n_pieces) override
  {
    given = inputs;
    before.resize(n_pieces);
    kept.resize(n_pieces);
  }

  Features forward(int k, const Features &features) override
  {
    if (whole) {
      Tensors found = whole->run({given.species, given.edge_index, given.edge_vec});
      by_last = {{}, {found[1]}};
      return {{found[0]}, {}};
    }
    before[k] = features;
    if (k == static_cast<int>(forwards.size())) {
      Tensors found = last->run(arguments(features));
      by_last = split(found.begin() + 1, found.end(), features.nodes.size());
      return {{found[0]}, {}};
    }
    Tensors found = forwards[k]->run(arguments(features));
    const auto after = found.end() - compiled.kept_tensors.at(k);
    kept[k].assign(after, found.end());
    return split(found.begin(), after, compiled.node_tensors[k]);
  }

  Features backward(int k, const Features &by_after) override
  {
    if (k == static_cast<int>(before.size()) - 1) return std::move(by_last);
    const Features features = std::exchange(before[k], {});
    Tensors all = arguments(features);
    const Tensors here = std::exchange(kept[k], {});
    all.insert(all.end(), here.begin(), here.end());
    all.insert(all.end(), by_after.nodes.begin(), by_after.nodes.end());
    all.insert(all.end(), by_after.edges.begin(), by_after.edges.end());
    Tensors found = backwards[k]->run(all);
    return split(found.begin(), found.end(), features.nodes.size());
  }

 private:
  using Loaded = std::unique_ptr<AOTIModelPackageLoader>;

  Compiled compiled;
  Loaded whole, last;
  std::vector<Loaded> forwards, backwards;
  Inputs given;
  std::vector<Features> before;
  std::vector<Tensors> kept;
  Features by_last;

  static Loaded load(const std::string &path, const std::string &name)
  {
    return std::make_unique<AOTIModelPackageLoader>(path, name, /*run_single_threaded=*/true);
  }

  Tensors arguments(const Features &features) const
  {
    Tensors all{given.own_species, given.species, given.edge_index};
    all.insert(all.end(), features.nodes.begin(), features.nodes.end());
    all.insert(all.end(), features.edges.begin(), features.edges.end());
    return all;
  }

  static Features split(Tensors::iterator begin, Tensors::iterator end, size_t n_nodes)
  {
    return {Tensors(begin, begin + n_nodes), Tensors(begin + n_nodes, end)};
  }
};

}    // namespace

std::unique_ptr<Code> load_aotinductor(const std::string &path, const Compiled &compiled, bool with_pieces)
{
  return std::make_unique<AOTInductor>(path, compiled, with_pieces);
}

}    // namespace dtmd
