/* SPDX-License-Identifier: GPL-2.0-or-later */

#include "fix_last_good.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "update.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <numeric>

using namespace LAMMPS_NS;

FixLastGood::FixLastGood(LAMMPS *lmp, int narg, char **arg) : Fix(lmp, narg, arg), step(-1), time(0.0)
{
  nevery = 1;
}

int FixLastGood::setmask()
{
  return FixConst::END_OF_STEP | FixConst::MIN_POST_FORCE;
}

double FixLastGood::memory_usage()
{
  return rows.capacity() * sizeof(double);
}

void FixLastGood::keep()
{
  step = update->ntimestep;
  time = update->atime + (step - update->atimestep) * update->dt;
  box = box_lines();
  rows.resize(static_cast<size_t>(atom->nlocal) * WIDTH);
  double *row = rows.data();
  for (int i = 0; i < atom->nlocal; i++, row += WIDTH) {
    row[0] = atom->tag[i];
    row[1] = atom->type[i];
    row[2] = atom->rmass ? atom->rmass[i] : atom->mass[atom->type[i]];
    domain->unmap(atom->x[i], atom->image[i], row + 3);
    std::copy_n(atom->v[i], 3, row + 6);
    std::copy_n(atom->f[i], 3, row + 9);
  }
}

std::string FixLastGood::box_lines() const
{
  char boundary[9];
  domain->boundary_string(boundary);
  const bool tilted = domain->triclinic;
  const double *low = tilted ? domain->boxlo_bound : domain->boxlo, *high = tilted ? domain->boxhi_bound : domain->boxhi;
  const double tilt[3] = {domain->xy, domain->xz, domain->yz};
  std::string lines = std::string("ITEM: BOX BOUNDS ") + (tilted ? "xy xz yz " : "") + boundary + "\n";
  char line[128];
  for (int k = 0; k < 3; k++) {
    const int length = std::snprintf(line, sizeof line, "%.17g %.17g", low[k], high[k]);
    if (tilted) std::snprintf(line + length, sizeof line - length, " %.17g", tilt[k]);
    lines += std::string(line) + "\n";
  }
  return lines;
}

// All atoms on rank 0, by id.
std::vector<double> FixLastGood::gathered() const
{
  const int n_mine = rows.size();
  std::vector<int> n_of_rank(comm->nprocs), first_of_rank(comm->nprocs);
  MPI_Gather(&n_mine, 1, MPI_INT, n_of_rank.data(), 1, MPI_INT, 0, world);
  std::exclusive_scan(n_of_rank.begin(), n_of_rank.end(), first_of_rank.begin(), 0);
  std::vector<double> all(comm->me == 0 ? first_of_rank.back() + n_of_rank.back() : 0);
  MPI_Gatherv(rows.data(), n_mine, MPI_DOUBLE, all.data(), n_of_rank.data(), first_of_rank.data(), MPI_DOUBLE, 0,
              world);
  return all;
}

std::string FixLastGood::write(const std::string &path, const std::vector<std::string> &element_of_type) const
{
  if (step < 0) return "There is no good frame before it";
  const std::vector<double> all = gathered();
  if (comm->me != 0) return "";    // rank 0 speaks
  const std::string unfinished = path + ".part";
  if (write_rows(unfinished, all, element_of_type) && std::rename(unfinished.c_str(), path.c_str()) == 0)
    return "The last good frame, step " + std::to_string(step) + ", is in " + path;
  const std::string reason = std::strerror(errno);
  std::remove(unfinished.c_str());
  return "The last good frame could not be written to " + path + ": " + reason;
}

bool FixLastGood::write_rows(const std::string &path, std::vector<double> all,
                             const std::vector<std::string> &elements) const
{
  const size_t n_atoms = all.size() / WIDTH;
  std::vector<const double *> atoms(n_atoms);
  for (size_t k = 0; k < n_atoms; k++) atoms[k] = &all[k * WIDTH];
  std::sort(atoms.begin(), atoms.end(), [](const double *a, const double *b) { return a[0] < b[0]; });
  FILE *file = std::fopen(path.c_str(), "w");
  if (!file) return false;
  std::fprintf(file, "ITEM: UNITS\nmetal\nITEM: TIME\n%.17g\nITEM: TIMESTEP\n%lld\nITEM: NUMBER OF ATOMS\n%zu\n%s", time,
               static_cast<long long>(step), n_atoms, box.c_str());
  std::fprintf(file, "ITEM: ATOMS id type element mass xu yu zu vx vy vz fx fy fz\n");
  for (const double *row : atoms) {
    const int type = row[1];
    std::fprintf(file, "%.0f %d %s %.17g", row[0], type, elements[type].c_str(), row[2]);
    for (int c = 3; c < WIDTH; c++) std::fprintf(file, " %.17g", row[c]);
    std::fprintf(file, "\n");
  }
  const bool written = std::ferror(file) == 0;
  return std::fclose(file) == 0 && written;
}
