/* -*- c++ -*- SPDX-License-Identifier: GPL-2.0-or-later
   An exported dtmd potential. Knows torch and nothing of LAMMPS; torch's headers stay in potential.cpp. */

#ifndef DTMD_POTENTIAL_H
#define DTMD_POTENTIAL_H

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace dtmd {

// Atoms and the directed edges between them, each pair in both directions.
struct Graph {
  std::vector<int64_t> species;    // [n_atoms], index into Potential::elements
  std::vector<int64_t> sources;    // [n_edges], the neighbour j
  std::vector<int64_t> targets;    // [n_edges], the centre i
  std::vector<double> vectors;     // [n_edges * 3], r_j - r_i in Angstrom

  size_t n_atoms() const { return species.size(); }
  size_t n_edges() const { return sources.size(); }
};

struct Evaluation {
  std::vector<double> energies;     // [n_atoms], eV
  std::vector<double> gradients;    // [n_edges * 3], dE/d(edge vector), eV/Angstrom
};

// Number of threads torch uses on the CPU, and the memory allocator's settings; for the whole process.
void prepare_process(int n_threads);

// Turns "auto", "cpu" or "cuda" into a torch device; ranks share the GPUs in turn.
// Throws std::runtime_error when torch sees no GPU and one is asked for.
std::string choose_device(const std::string &wish, int rank);

class Potential {
 public:
  // Reads the file; throws std::runtime_error with a message for the user.
  Potential(const std::string &path, const std::string &device);
  ~Potential();

  // Energies and their gradient; throws std::runtime_error when the model fails.
  void evaluate(const Graph &graph, Evaluation &evaluation);

  std::vector<std::string> elements;
  std::vector<double> masses;    // standard atomic masses of the elements, u
  double cutoff;                 // Angstrom
  std::string dtype;
  bool per_atom_energy;          // false: only the sum of the energies has a meaning

 private:
  struct Module;
  std::unique_ptr<Module> module;

  void read_labels(const std::string &path);
};

}    // namespace dtmd

#endif
