/* -*- c++ -*- SPDX-License-Identifier: GPL-2.0-or-later
   pair_style dtmd [device cpu|cuda|auto] [threads N] [max_force F] [extrapolation yes|no] [last_good FILE]
   pair_coeff * * model.lammps.pt [more.lammps.pt ...] H C Pd */

#ifndef LMP_PAIR_DTMD_H
#define LMP_PAIR_DTMD_H

#include "pair.h"

#include "committee.h"
#include "guards.h"

namespace LAMMPS_NS {

class PairDTMD : public Pair, private dtmd::Exchange {
 public:
  PairDTMD(class LAMMPS *);
  ~PairDTMD() override;

  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void compute(int, int) override;
  void *extract_peratom(const char *, int &) override;

  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;

 private:
  std::string device;                               // as torch names it
  int n_threads;
  std::unique_ptr<dtmd::Committee> committee;
  Guards guards;
  std::vector<int64_t> species_of_type;             // [ntypes + 1], index into the elements of the potential
  dtmd::Graph graph;                                // kept between steps, so that memory is reused
  std::vector<int> neighbours;                      // [n_edges], the atom or image that is near
  std::vector<int> ghosts;                          // the atoms of other ranks among the nodes, after nlocal
  std::vector<int64_t> node_of_ghost;               // [nghost], -1: no neighbour of an atom here
  std::vector<double> exchanged;                    // [(nlocal + nghost) * exchanged_width]
  int exchanged_width;

  void from_owners(std::vector<double> &rows, int width) override;
  void to_owners(std::vector<double> &rows, int width) override;
  void allocate();
  void clear_coefficients();
  void load(const std::vector<std::string> &paths);
  void map_elements(int, char **);
  void check_masses();
  void check_neighbours();
  void fail_if(const std::string &problem);
  void build_graph();
  int64_t node_of(int atom);
  void tally_energies();
  void tally_virials();
  void tally_virial(int i, int j, const double *vector, const double *gradient);
};

}    // namespace LAMMPS_NS

#endif
