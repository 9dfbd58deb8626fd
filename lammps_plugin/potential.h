/* -*- c++ -*- SPDX-License-Identifier: GPL-2.0-or-later
   An exported dtmd potential. Knows torch and nothing of LAMMPS; torch's headers stay in potential.cpp. */

#ifndef DTMD_POTENTIAL_H
#define DTMD_POTENTIAL_H

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace dtmd {

class Code;

// Atoms and the directed edges between them, each pair in both directions. The first n_atoms nodes are
// this rank's own, which are the centres; the others belong to other ranks.
struct Graph {
  size_t n_atoms;
  std::vector<int64_t> species;    // [n_nodes], index into Potential::elements
  std::vector<int64_t> sources;    // [n_edges], the neighbour j, a node
  std::vector<int64_t> targets;    // [n_edges], the centre i, an own atom
  std::vector<double> vectors;     // [n_edges * 3], r_j - r_i in Angstrom

  size_t n_nodes() const { return species.size(); }
  size_t n_edges() const { return sources.size(); }
};

// Numbers of the nodes between ranks, [n_nodes * width]. Every rank makes the same calls, one without
// atoms too, from the thread that has called evaluate.
class Exchange {
 public:
  virtual void from_owners(std::vector<double> &rows, int width) = 0;    // fills the rows of others' atoms
  virtual void to_owners(std::vector<double> &rows, int width) = 0;      // adds them to the rows of the owners

 protected:
  ~Exchange() = default;
};

struct Evaluation {
  std::vector<double> energies;     // [n_atoms], eV
  std::vector<double> gradients;    // [n_edges * 3], dE/d(edge vector), eV/Angstrom
};

// Of a file with machine code: of how many tensors the nodes are made after each layer but the last, and how many the
// layer keeps for the way back.
struct Compiled {
  std::vector<int> node_tensors, kept_tensors;
};

// Number of threads torch uses on the CPU, and the memory allocator's settings; for the whole process.
void prepare_process(int n_threads);

// Turns "auto", "cpu" or "cuda" into a torch device; ranks share the GPUs in turn.
// Throws std::runtime_error when torch sees no GPU and one is asked for.
std::string choose_device(const std::string &wish, int rank);

class Potential {
 public:
  // Reads the file, and what one rank or several need of it; throws std::runtime_error with a message for the user.
  Potential(const std::string &path, const std::string &device, bool on_several_ranks);
  ~Potential();

  // Energies of the own atoms and the gradient of all ranks' energies by the own edges; throws
  // std::runtime_error when the model fails. Without an exchange all nodes are own atoms.
  void evaluate(const Graph &graph, Evaluation &evaluation, Exchange *exchange);

  std::vector<std::string> elements;
  std::vector<double> masses;    // standard atomic masses of the elements, u
  double cutoff;                 // Angstrom
  std::string dtype;
  bool per_atom_energy;          // false: only the sum of the energies has a meaning
  std::vector<int> exchanged;    // numbers per node that pass between ranks after each layer but the last
  std::vector<double> closest;   // Angstrom, upper triangle of the pairs of elements; empty where not known

 private:
  std::string device;
  std::optional<Compiled> compiled;    // of a file with machine code
  std::unique_ptr<Code> code;

  void evaluate_nothing(Exchange *exchange);
  void read_labels(const std::string &path);
  void check_machine(const std::string &path, const std::string &torch_version, const std::string &machine,
                     const std::vector<std::string> &instructions);
};

}    // namespace dtmd

#endif
