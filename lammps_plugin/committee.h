/* -*- c++ -*- SPDX-License-Identifier: GPL-2.0-or-later
   One exported potential, or several for the same system: their mean, and how far their forces lie apart. */

#ifndef DTMD_COMMITTEE_H
#define DTMD_COMMITTEE_H

#include "potential.h"

namespace dtmd {

class Committee {
 public:
  // Reads the files, and what one rank or several need of them; throws std::runtime_error with a message for the user.
  Committee(const std::vector<std::string> &paths, const std::string &device, bool on_several_ranks);

  // Fills the members below; throws std::runtime_error when a model fails. Without an exchange all nodes are own
  // atoms.
  void evaluate(const Graph &graph, Exchange *exchange);

  size_t size() const { return members.size(); }
  const Potential &first() const { return *members.front(); }    // what they share: elements, masses, cutoff
  const Potential &member(size_t m) const { return *members[m]; }

  bool per_atom_energy;                // false if only the sum of the energies has a meaning for some of them
  int width_forward, width_reverse;    // largest numbers per node that pass between ranks
  std::vector<double> closest;         // [n_elements * n_elements], Angstrom: nearer pairs were not in the data that
                                       // some of them were trained on; empty where one does not know

  std::vector<double> energies;        // [n_atoms], eV, mean
  std::vector<double> gradients;       // [n_edges * 3], dE/d(edge vector), eV/Angstrom, mean
  std::vector<double> forces;          // [n_atoms * 3], eV/Angstrom, mean, with the edges of all ranks
  std::vector<double> deviations;      // [n_atoms], eV/Angstrom, see reduce()

 private:
  std::vector<std::unique_ptr<Potential>> members;
  Evaluation evaluation;               // of one of them
  std::vector<double> rows;            // [n_nodes, n_members, 3], forces of each

  void raise_if_unlike(const Potential &other, const std::string &path, const std::string &first_path) const;
  void merge_closest(const Potential &member, const std::string &path);
  void add(size_t m, const Graph &graph);
  void reduce(size_t n_atoms);
};

}    // namespace dtmd

#endif
