/* -*- c++ -*- SPDX-License-Identifier: GPL-2.0-or-later
   pair_style dtmd [device cpu|cuda|auto] [threads N]
   pair_coeff * * model.lammps.pt H C Pd */

#ifndef LMP_PAIR_DTMD_H
#define LMP_PAIR_DTMD_H

#include "pair.h"

#include "potential.h"

namespace LAMMPS_NS {

class PairDTMD : public Pair {
 public:
  PairDTMD(class LAMMPS *);
  ~PairDTMD() override;

  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void compute(int, int) override;

 private:
  std::string device;                               // as torch names it
  int n_threads;
  std::unique_ptr<dtmd::Potential> potential;
  std::vector<int64_t> species_of_type;             // [ntypes + 1], index into potential->elements
  dtmd::Graph graph;                                // kept between steps, so that memory is reused
  dtmd::Evaluation evaluation;

  void allocate();
  void load(const std::string &path);
  void map_elements(int, char **);
  void check_masses();
  void build_graph();
  void check_finite();
  void tally_energies();
  void tally_forces();
  void tally_virial(int i, int j, const double *vector, const double *gradient);
};

}    // namespace LAMMPS_NS

#endif
