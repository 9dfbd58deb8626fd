/* -*- c++ -*- SPDX-License-Identifier: GPL-2.0-or-later
   What pair_style dtmd looks at in each step: forces that no MD survives, pairs nearer than in the training data,
   disagreement of a committee. */

#ifndef DTMD_GUARDS_H
#define DTMD_GUARDS_H

#include "pointers.h"

#include "committee.h"

namespace LAMMPS_NS {

class FixLastGood;

class Guards : protected Pointers {
 public:
  // For `compute ID all pair dtmd`, which sums them over the ranks; NaN where it is not known.
  enum { TOO_CLOSE, STEPS_TOO_CLOSE, MAX_DEVIATION, MEAN_DEVIATION, N_VALUES };
  double values[N_VALUES];

  Guards(class LAMMPS *, int instance);
  ~Guards() override;

  void settings();                                                        // the defaults
  bool setting(const std::string &keyword, const std::string &value);     // whether it is one of the guards'
  void loaded(const dtmd::Committee &);
  void begin_run(const std::vector<std::string> &element_of_type);
  void check(const dtmd::Graph &, const dtmd::Committee &);

 private:
  struct Force {
    double size;    // eV/Angstrom; infinite where it or the energy is not a finite number
    int atom;
  };
  struct Pairs {
    bigint number;      // directed edges: each pair twice, over all ranks
    int64_t nearest;    // the edge that is nearest by the measure of its elements, -1: none
  };

  const std::string fix_id;
  double max_force;              // eV/Angstrom
  std::string last_good_path;
  bool want_closest;             // extrapolation yes, so that its absence is an error
  bool count_closest;
  bool told;                     // of a pair, in this run
  bigint n_steps_too_close;
  std::vector<std::string> element_of_type;

  Force largest_force(const dtmd::Committee &) const;
  Pairs too_close(const dtmd::Graph &, const dtmd::Committee &) const;
  [[noreturn]] void stop(const Force &, bool here);
  void tell(const dtmd::Graph &, const dtmd::Committee &, int64_t edge);
  int first_rank(bool here) const;
};

}    // namespace LAMMPS_NS

#endif
