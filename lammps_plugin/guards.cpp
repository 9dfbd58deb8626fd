/* SPDX-License-Identifier: GPL-2.0-or-later */

#include "guards.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "modify.h"
#include "universe.h"
#include "update.h"

#include "fix_last_good.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace LAMMPS_NS;

// In a step of 0.5 fs such a force gives a hydrogen at rest 12 eV; forces of AIMD are ten times smaller.
static constexpr double MAX_FORCE = 100.0;    // eV/Angstrom
static constexpr double INFINITE = std::numeric_limits<double>::infinity();
static constexpr double UNKNOWN = std::numeric_limits<double>::quiet_NaN();
static const char *const FIX_STYLE = "DTMD_LAST_GOOD";    // in capitals, as styles that inputs do not name

Guards::Guards(LAMMPS *lmp, int instance) :
    Pointers(lmp), fix_id(FIX_STYLE + std::to_string(instance)), count_closest(false), told(false),
    n_steps_too_close(0)
{
  settings();
  std::fill_n(values, N_VALUES, UNKNOWN);
}

Guards::~Guards()
{
  if (modify && modify->get_fix_by_id(fix_id)) modify->delete_fix(fix_id);
}

void Guards::settings()
{
  max_force = MAX_FORCE;
  want_closest = false;
  count_closest = true;
  const std::string copy = universe->nworlds > 1 ? "." + std::to_string(universe->iworld + 1) : "";
  last_good_path = "dtmd.last_good" + copy + ".lammpstrj";
}

bool Guards::setting(const std::string &keyword, const std::string &value)
{
  if (keyword == "max_force") {
    max_force = utils::numeric(FLERR, value, false, lmp);
    if (!(max_force > 0)) error->all(FLERR, "pair_style dtmd max_force {}: more than 0 eV/Angstrom is needed", value);
  } else if (keyword == "extrapolation" && (value == "yes" || value == "no")) {
    want_closest = count_closest = value == "yes";
  } else if (keyword == "last_good") {
    last_good_path = value;
  } else
    return false;
  return true;
}

void Guards::loaded(const dtmd::Committee &committee)
{
  if (committee.closest.empty() && want_closest)
    error->all(FLERR, "pair_style dtmd extrapolation yes: the potential does not hold the closest distances of its "
               "training data; train it with this version of dtmd and export it again, or leave `extrapolation yes` "
               "out");
  if (committee.closest.empty() && count_closest)
    utils::logmesg(lmp, "dtmd: the potential does not hold the closest distances of its training data, so pairs that "
                   "are closer are not counted\n");
  count_closest = count_closest && !committee.closest.empty();
}

void Guards::begin_run(const std::vector<std::string> &elements)
{
  element_of_type = elements;
  told = false;
  n_steps_too_close = 0;
  if (modify->get_fix_by_id(fix_id)) return;
  (*modify->fix_map)[FIX_STYLE] = [](LAMMPS *instance, int narg, char **arg) -> Fix * {
    return new FixLastGood(instance, narg, arg);
  };
  modify->add_fix(fix_id + " all " + FIX_STYLE);
  modify->fix_map->erase(FIX_STYLE);    // the style must not outlive this library
}

// All ranks come to the same end: one message, and one frame to which all give their atoms.
void Guards::check(const dtmd::Graph &graph, const dtmd::Committee &committee)
{
  const Force force = largest_force(committee);
  const Pairs pairs = count_closest ? too_close(graph, committee) : Pairs{0, -1};
  double deviation = 0.0, sum = 0.0;
  for (const double value : committee.deviations) {
    deviation = std::max(deviation, value);
    sum += value;
  }
  const double mine[3] = {force.size, pairs.number > 0 ? 1.0 : 0.0, deviation};
  double largest[3];
  MPI_Allreduce(mine, largest, 3, MPI_DOUBLE, MPI_MAX, world);

  // a minimisation may begin anywhere
  const double limit = update->whichflag == 2 ? std::numeric_limits<double>::max() : max_force;
  if (largest[0] > limit) stop(force, mine[0] == largest[0]);
  if (largest[1] > 0) n_steps_too_close++;
  if (largest[1] > 0 && !told) tell(graph, committee, pairs.nearest);
  const bool first = comm->me == 0, several = committee.size() > 1;
  values[TOO_CLOSE] = count_closest ? 0.5 * pairs.number : UNKNOWN;
  values[STEPS_TOO_CLOSE] = count_closest ? first * n_steps_too_close : UNKNOWN;
  values[MAX_DEVIATION] = several ? first * largest[2] : UNKNOWN;
  values[MEAN_DEVIATION] = several ? sum / std::max<bigint>(atom->natoms, 1) : UNKNOWN;
}

Guards::Force Guards::largest_force(const dtmd::Committee &committee) const
{
  Force largest{-1.0, -1};
  for (int i = 0; i < atom->nlocal; i++) {
    const double *f = &committee.forces[3 * i];
    const double square = f[0] * f[0] + f[1] * f[1] + f[2] * f[2];
    const double size = std::isfinite(square + committee.energies[i]) ? std::sqrt(square) : INFINITE;
    if (size > largest.size) largest = {size, i};
  }
  return largest;
}

Guards::Pairs Guards::too_close(const dtmd::Graph &graph, const dtmd::Committee &committee) const
{
  const size_t n_elements = committee.first().elements.size();
  Pairs found{0, -1};
  double nearest = 1.0;    // square of the distance over the closest one
  for (size_t edge = 0; edge < graph.n_edges(); edge++) {
    const double *r = &graph.vectors[3 * edge];
    const double closest =
        committee.closest[graph.species[graph.targets[edge]] * n_elements + graph.species[graph.sources[edge]]];
    const double ratio = (r[0] * r[0] + r[1] * r[1] + r[2] * r[2]) / (closest * closest);
    if (ratio >= 1.0) continue;
    found.number++;
    if (ratio < nearest) {
      nearest = ratio;
      found.nearest = edge;
    }
  }
  return found;
}

void Guards::stop(const Force &force, bool here)
{
  const int rank = first_rank(here);
  int64_t culprit[2] = {0, 0};    // id and type
  if (comm->me == rank) {
    culprit[0] = atom->tag[force.atom];
    culprit[1] = atom->type[force.atom];
  }
  double size = force.size;
  MPI_Bcast(culprit, 2, MPI_INT64_T, rank, world);
  MPI_Bcast(&size, 1, MPI_DOUBLE, rank, world);

  std::string frame;
  if (const auto *last = dynamic_cast<FixLastGood *>(modify->get_fix_by_id(fix_id)))
    frame = last->write(last_good_path, element_of_type);
  const std::string who = fmt::format("step {}: the {} of atom {} ({}) is", update->ntimestep,
                                      std::isfinite(size) ? "force" : "energy or force", culprit[0],
                                      element_of_type[culprit[1]]);
  const std::string what = std::isfinite(size)
      ? fmt::format("{:.4g} eV/Angstrom, above max_force {:g}", size, max_force) : "not a finite number";
  error->all(FLERR, "{} {}. {}. The atoms have left what the potential was trained on; look at that frame, try a "
             "smaller timestep, or train on such configurations", who, what, frame);
}

// Rank 0 is the one whose warnings are seen.
void Guards::tell(const dtmd::Graph &graph, const dtmd::Committee &committee, int64_t edge)
{
  told = true;
  const auto &elements = committee.first().elements;
  const int rank = first_rank(edge >= 0);
  int64_t who[3] = {0, 0, 0};    // id and element of the one, element of the other
  double distance = 0.0;
  if (comm->me == rank) {
    const double *r = &graph.vectors[3 * edge];
    who[0] = atom->tag[graph.targets[edge]];
    who[1] = graph.species[graph.targets[edge]];
    who[2] = graph.species[graph.sources[edge]];
    distance = std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
  }
  MPI_Bcast(who, 3, MPI_INT64_T, rank, world);
  MPI_Bcast(&distance, 1, MPI_DOUBLE, rank, world);
  if (comm->me != 0) return;
  const double closest = committee.closest[who[1] * elements.size() + who[2]];
  const std::string known = closest < committee.first().cutoff
      ? fmt::format("no {} and {} of the training data are closer than {:.4g}", elements[who[1]], elements[who[2]],
                    closest)
      : fmt::format("the training data have no {} and {} within the cutoff", elements[who[1]], elements[who[2]]);
  error->warning(FLERR, "step {}: atom {} ({}) has a neighbour {} at {:.4g} Angstrom, but {}: the potential "
                 "extrapolates. Said once in a run; `compute ID all pair dtmd` counts", update->ntimestep, who[0],
                 elements[who[1]], elements[who[2]], distance, known);
}

int Guards::first_rank(bool here) const
{
  int mine = here ? comm->me : comm->nprocs, first;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  return first;
}
