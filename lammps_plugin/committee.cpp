/* SPDX-License-Identifier: GPL-2.0-or-later */

#include "committee.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace dtmd {

Committee::Committee(const std::vector<std::string> &paths, const std::string &device, bool on_several_ranks) :
    per_atom_energy(true), width_forward(0), width_reverse(3 * paths.size())
{
  for (const auto &path : paths) {
    members.push_back(std::make_unique<Potential>(path, device, on_several_ranks));
    const Potential &member = *members.back();
    raise_if_unlike(member, path, paths.front());
    per_atom_energy = per_atom_energy && member.per_atom_energy;
    for (const int width : member.exchanged) width_forward = std::max(width_forward, width);
    merge_closest(member, path);
  }
  width_reverse = std::max(width_reverse, width_forward);
  deviations.reserve(1);    // LAMMPS takes a null pointer for none, also on a rank without atoms
}

// All see the same graph: the same numbers of the elements, and the same edges.
void Committee::raise_if_unlike(const Potential &other, const std::string &path, const std::string &first_path) const
{
  const std::string advice = "; the potentials of a committee need the same elements and cutoff: train them with one "
                             "config and other seeds or data";
  if (other.elements != first().elements)
    throw std::runtime_error(path + " knows other elements than " + first_path + advice);
  if (other.cutoff != first().cutoff)
    throw std::runtime_error(path + " has a cutoff of " + std::to_string(other.cutoff) + " Angstrom, " + first_path +
                             " one of " + std::to_string(first().cutoff) + advice);
}

// The file has the upper triangle, row by row. The member that has seen least decides.
void Committee::merge_closest(const Potential &member, const std::string &path)
{
  const size_t n = member.elements.size(), n_pairs = n * (n + 1) / 2;
  if (!member.closest.empty() && member.closest.size() != n_pairs)
    throw std::runtime_error(path + ": damaged: " + std::to_string(member.closest.size()) + " closest distances for " +
                             std::to_string(n_pairs) + " pairs of elements\nWrite it again with: dtmd export model.pt");
  const bool known = !member.closest.empty() && (members.size() == 1 || !closest.empty());
  closest.resize(known ? n * n : 0, 0.0);
  if (!known) return;
  for (size_t a = 0, next = 0; a < n; a++)
    for (size_t b = a; b < n; b++, next++)
      closest[a * n + b] = closest[b * n + a] = std::max(closest[a * n + b], member.closest[next]);
}

void Committee::evaluate(const Graph &graph, Exchange *exchange)
{
  energies.assign(graph.n_atoms, 0.0);
  gradients.assign(3 * graph.n_edges(), 0.0);
  rows.assign(3 * size() * graph.n_nodes(), 0.0);
  for (size_t m = 0; m < size(); m++) {
    members[m]->evaluate(graph, evaluation, exchange);
    add(m, graph);
  }
  if (exchange) exchange->to_owners(rows, 3 * size());
  reduce(graph.n_atoms);
}

// With the vector r_j - r_i of an edge and the gradient g of the energy: F_i = +g, F_j = -g.
void Committee::add(size_t m, const Graph &graph)
{
  const double share = 1.0 / size();
  for (size_t i = 0; i < evaluation.energies.size(); i++) energies[i] += share * evaluation.energies[i];
  for (size_t edge = 0; 3 * edge < evaluation.gradients.size(); edge++) {
    double *on_centre = &rows[3 * (graph.targets[edge] * size() + m)];
    double *on_neighbour = &rows[3 * (graph.sources[edge] * size() + m)];
    for (int k = 0; k < 3; k++) {
      const double gradient = evaluation.gradients[3 * edge + k];
      gradients[3 * edge + k] += share * gradient;
      on_centre[k] += gradient;
      on_neighbour[k] -= gradient;
    }
  }
}

// Deviation of atom i: sqrt(1/M sum_m |F_i^m - F_i|^2) with F_i the mean over the M members; Zhang et al.,
// Comput. Phys. Commun. 253, 107206 (2020).
void Committee::reduce(size_t n_atoms)
{
  forces.assign(3 * n_atoms, 0.0);
  deviations.assign(n_atoms, 0.0);
  for (size_t i = 0; i < n_atoms; i++) {
    const double *row = &rows[3 * i * size()];
    double *mean = &forces[3 * i];
    for (size_t c = 0; c < 3 * size(); c++) mean[c % 3] += row[c] / size();
    for (size_t c = 0; c < 3 * size(); c++) deviations[i] += std::pow(row[c] - mean[c % 3], 2);
    deviations[i] = std::sqrt(deviations[i] / size());
  }
}

}    // namespace dtmd
