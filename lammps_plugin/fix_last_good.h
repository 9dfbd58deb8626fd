/* -*- c++ -*- SPDX-License-Identifier: GPL-2.0-or-later
   The frame at the end of the last step, for the case that the next one has no usable forces. Made and used by
   pair_style dtmd: as a fix it sees positions and velocities of the same time. */

#ifndef LMP_FIX_LAST_GOOD_H
#define LMP_FIX_LAST_GOOD_H

#include "fix.h"

namespace LAMMPS_NS {

class FixLastGood : public Fix {
 public:
  FixLastGood(class LAMMPS *, int, char **);

  int setmask() override;
  void setup(int) override { keep(); }
  void min_setup(int) override { keep(); }
  void end_of_step() override { keep(); }
  void min_post_force(int) override { keep(); }
  double memory_usage() override;

  // Writes the frame as a text dump, whole or not at all; the same call on all ranks. Returns a sentence on it.
  std::string write(const std::string &path, const std::vector<std::string> &element_of_type) const;

 private:
  static constexpr int WIDTH = 12;    // id, type, mass, position, velocity, force
  bigint step;                        // -1: none yet
  double time;                        // ps
  std::string box;                    // lines of the dump
  std::vector<double> rows;           // [own atoms, WIDTH]

  void keep();
  std::string box_lines() const;
  std::vector<double> gathered() const;
  bool write_rows(const std::string &path, std::vector<double> all, const std::vector<std::string> &elements) const;
};

}    // namespace LAMMPS_NS

#endif
