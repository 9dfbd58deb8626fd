/* SPDX-License-Identifier: GPL-2.0-or-later
   The LAMMPS side of pair_style dtmd: neighbours in, forces, energy and virial out. */

#include "pair_dtmd.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "universe.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;

// Wide enough for isotopes (deuterium is an H), narrow enough to notice elements in the wrong order.
static constexpr double MASS_TOLERANCE = 1.1;    // u

static std::string join(const std::vector<std::string> &words)
{
  std::string line;
  for (const auto &word : words) line += (line.empty() ? "" : " ") + word;
  return line;
}

PairDTMD::PairDTMD(LAMMPS *lmp) : Pair(lmp), device("cpu"), n_threads(1)
{
  single_enable = 0;
  restartinfo = 0;    // a path of this machine has no place in a restart file: pair_coeff is given again
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;    // the virial comes from the edges, see tally_virial
  centroidstressflag = CENTROID_NOTAVAIL;
}

PairDTMD::~PairDTMD()
{
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairDTMD::settings(int narg, char **arg)
{
  std::string wish = "auto";
  n_threads = comm->nthreads;    // LAMMPS's own setting, OMP_NUM_THREADS
  for (int k = 0; k < narg; k += 2) {
    const std::string keyword = arg[k];
    const std::string value = k + 1 < narg ? arg[k + 1] : "nothing";
    if (keyword == "device" && (value == "cpu" || value == "cuda" || value == "auto"))
      wish = value;
    else if (keyword == "threads" && k + 1 < narg)
      n_threads = utils::inumeric(FLERR, value, false, lmp);
    else
      error->all(FLERR, "pair_style dtmd does not know `{} {}`; write: "
                 "pair_style dtmd [device cpu|cuda|auto] [threads N]", keyword, value);
  }
  if (n_threads < 1) error->all(FLERR, "pair_style dtmd threads {}: at least 1 is needed", n_threads);
  std::string problem;
  try {
    device = dtmd::choose_device(wish, universe->me);
  } catch (const std::exception &failure) {
    problem = std::string("pair_style dtmd: ") + failure.what();
  }
  fail_if(problem);
  dtmd::prepare_process(n_threads);
}

void PairDTMD::coeff(int narg, char **arg)
{
  if (narg < 3)
    error->all(FLERR, "write the pair coefficients of dtmd as: pair_coeff * * model.lammps.pt H C Pd "
               "(one element symbol for each of the {} atom types)", atom->ntypes);
  if (!allocated) allocate();
  load(arg[2]);
  map_elements(narg - 3, arg + 3);
}

// Stops the run with one message if all ranks have a problem, and without waiting for them if only some have.
void PairDTMD::fail_if(const std::string &problem)
{
  int mine = !problem.empty(), all = 0;
  MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MIN, world);
  if (all) error->all(FLERR, problem);
  if (mine) error->one(FLERR, problem);
}

void PairDTMD::allocate()
{
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  allocated = 1;
}

void PairDTMD::load(const std::string &path)
{
  std::string problem;
  try {
    potential = std::make_unique<dtmd::Potential>(path, device, comm->nprocs > 1);
  } catch (const std::exception &failure) {
    problem = failure.what();
  }
  fail_if(problem);
  if (!potential->per_atom_energy && comm->nprocs > 1)
    error->all(FLERR, "{}: the energy of a pooled readout comes from the sum over all atoms, which are on {} MPI "
               "ranks here; run `lmp -in FILE` without mpirun, or train with model: {{readout: per_atom}}",
               path, comm->nprocs);
  utils::logmesg(lmp, "dtmd: potential {}, elements {}, cutoff {} Angstrom, {}, device {}, {} thread{}\n",
                 path, join(potential->elements), potential->cutoff, potential->dtype, device, n_threads,
                 n_threads == 1 ? "" : "s");
}

void PairDTMD::map_elements(int n_symbols, char **symbols)
{
  if (n_symbols != atom->ntypes)
    error->all(FLERR, "pair_coeff names {} elements for {} atom types; write one symbol for each type after "
               "the file name, of those the potential knows: {}", n_symbols, atom->ntypes,
               join(potential->elements));
  species_of_type.assign(atom->ntypes + 1, -1);
  const auto &known = potential->elements;
  for (int type = 1; type <= atom->ntypes; type++) {
    const auto found = std::find(known.begin(), known.end(), symbols[type - 1]);
    if (found == known.end())
      error->all(FLERR, "pair_coeff names {} for atom type {}, but the potential knows only: {}",
                 symbols[type - 1], type, join(known));
    species_of_type[type] = found - known.begin();
  }
  for (int i = 1; i <= atom->ntypes; i++)
    for (int j = 1; j <= atom->ntypes; j++) setflag[i][j] = 1;
}

void PairDTMD::init_style()
{
  if (strcmp(update->unit_style, "metal") != 0)
    error->all(FLERR, "pair_style dtmd computes in eV and Angstrom, this run has `units {}`; write: "
               "units metal", update->unit_style);
  if (!force->newton_pair)
    error->all(FLERR, "pair_style dtmd needs Newton's third law for pairs; write: newton on");
  if (!atom->tag_enable || atom->map_style == Atom::MAP_NONE)
    error->all(FLERR, "pair_style dtmd looks atoms up by their ids; write before the box is made: "
               "atom_modify map yes");
  const double *special = force->special_lj;
  if (atom->nbonds > 0 && (special[1] != 1 || special[2] != 1 || special[3] != 1))
    error->all(FLERR, "pair_style dtmd needs the bonded neighbours too; write: special_bonds lj/coul 1 1 1");
  check_masses();
  neighbor->add_request(this, NeighConst::REQ_FULL);

  const auto &widths = potential->exchanged;
  comm_forward = comm_reverse = widths.empty() ? 0 : *std::max_element(widths.begin(), widths.end());
  // pair_style hybrid has taken the sizes of its styles before pair_coeff
  force->pair->comm_forward = std::max(force->pair->comm_forward, comm_forward);
  force->pair->comm_reverse = std::max(force->pair->comm_reverse, comm_reverse);
}

void PairDTMD::check_masses()
{
  if (!atom->mass) return;    // atom styles with a mass for each atom have none for a type
  for (int type = 1; type <= atom->ntypes; type++) {
    if (!atom->mass_setflag[type]) continue;    // LAMMPS itself refuses to run without masses
    const auto species = species_of_type[type];
    const double expected = potential->masses[species];
    if (std::fabs(atom->mass[type] - expected) > MASS_TOLERANCE)
      error->all(FLERR, "atom type {} has mass {} u, but pair_coeff says it is {} ({} u); check the order of "
                 "the elements in pair_coeff, or the mass of the type", type, atom->mass[type],
                 potential->elements[species], expected);
  }
}

double PairDTMD::init_one(int, int)
{
  return potential->cutoff;
}

void PairDTMD::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  if (eflag_atom && !potential->per_atom_energy)
    error->all(FLERR, "this potential gives the energy of the whole system only (pooled readout), so there "
               "is no energy per atom; remove compute pe/atom, or train a model with a per-atom readout");
  if (list->listskip)
    error->all(FLERR, "pair_style dtmd needs all pairs of atoms; write pair_style hybrid/overlay, "
               "and: pair_coeff * * dtmd model.lammps.pt ...");

  build_graph();
  try {
    potential->evaluate(graph, evaluation, comm->nprocs > 1 ? this : nullptr);
  } catch (const std::exception &problem) {
    error->one(FLERR, "step {}: {}", update->ntimestep, problem.what());
  }
  check_finite();
  tally_energies();
  tally_forces();
}

// The edges within the cutoff, with the vector to the image that is near. The node of an image is the atom itself
// where this rank owns it, else one ghost for all its images.
void PairDTMD::build_graph()
{
  graph.n_atoms = atom->nlocal;
  graph.species.resize(atom->nlocal);
  for (int i = 0; i < atom->nlocal; i++) graph.species[i] = species_of_type[atom->type[i]];
  graph.sources.clear();
  graph.targets.clear();
  graph.vectors.clear();
  neighbours.clear();
  ghosts.clear();
  node_of_ghost.assign(atom->nghost, -1);

  double **x = atom->x;
  const double cutoff_squared = potential->cutoff * potential->cutoff;
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii];
    for (int jj = 0; jj < list->numneigh[i]; jj++) {
      const int j = list->firstneigh[i][jj] & NEIGHMASK;
      const double vector[3] = {x[j][0] - x[i][0], x[j][1] - x[i][1], x[j][2] - x[i][2]};
      if (vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2] >= cutoff_squared) continue;
      neighbours.push_back(j);
      graph.sources.push_back(node_of(atom->map(atom->tag[j])));
      graph.targets.push_back(i);
      graph.vectors.insert(graph.vectors.end(), vector, vector + 3);
    }
  }
}

int64_t PairDTMD::node_of(int i)
{
  if (i < atom->nlocal) return i;
  int64_t &node = node_of_ghost[i - atom->nlocal];
  if (node < 0) {
    node = graph.n_nodes();
    graph.species.push_back(species_of_type[atom->type[i]]);
    ghosts.push_back(i);
  }
  return node;
}

void PairDTMD::from_owners(std::vector<double> &rows, int width)
{
  exchanged_width = width;
  exchanged.assign(static_cast<size_t>(atom->nlocal + atom->nghost) * width, 0.0);
  std::copy_n(rows.begin(), static_cast<size_t>(atom->nlocal) * width, exchanged.begin());
  comm->forward_comm(this, width);
  auto row = rows.begin() + static_cast<size_t>(atom->nlocal) * width;
  for (const int i : ghosts) row = std::copy_n(exchanged.begin() + static_cast<size_t>(i) * width, width, row);
}

void PairDTMD::to_owners(std::vector<double> &rows, int width)
{
  exchanged_width = width;
  exchanged.assign(static_cast<size_t>(atom->nlocal + atom->nghost) * width, 0.0);
  const auto own_end = rows.begin() + static_cast<size_t>(atom->nlocal) * width;
  std::copy(rows.begin(), own_end, exchanged.begin());
  auto row = own_end;
  for (const int i : ghosts) {
    std::copy_n(row, width, exchanged.begin() + static_cast<size_t>(i) * width);
    row += width;
  }
  comm->reverse_comm(this, width);
  std::copy_n(exchanged.begin(), static_cast<size_t>(atom->nlocal) * width, rows.begin());
}

int PairDTMD::pack_forward_comm(int n, int *list, double *buffer, int, int *)
{
  for (int k = 0; k < n; k++)
    std::copy_n(&exchanged[static_cast<size_t>(list[k]) * exchanged_width], exchanged_width,
                buffer + static_cast<size_t>(k) * exchanged_width);
  return n * exchanged_width;
}

void PairDTMD::unpack_forward_comm(int n, int first, double *buffer)
{
  std::copy_n(buffer, static_cast<size_t>(n) * exchanged_width,
              exchanged.begin() + static_cast<size_t>(first) * exchanged_width);
}

int PairDTMD::pack_reverse_comm(int n, int first, double *buffer)
{
  std::copy_n(exchanged.begin() + static_cast<size_t>(first) * exchanged_width,
              static_cast<size_t>(n) * exchanged_width, buffer);
  return n * exchanged_width;
}

void PairDTMD::unpack_reverse_comm(int n, int *list, double *buffer)
{
  for (int k = 0; k < n; k++)
    for (int c = 0; c < exchanged_width; c++)
      exchanged[static_cast<size_t>(list[k]) * exchanged_width + c] += *buffer++;
}

void PairDTMD::check_finite()
{
  int64_t culprit = -1;
  for (size_t k = 0; k < evaluation.gradients.size() && culprit < 0; k++)
    if (!std::isfinite(evaluation.gradients[k])) culprit = graph.targets[k / 3];
  for (int i = 0; i < atom->nlocal && culprit < 0; i++)
    if (!std::isfinite(evaluation.energies[i])) culprit = i;
  if (culprit < 0) return;
  error->one(FLERR, "step {}: the energy or force of atom {} ({}) is not a finite number. The atoms have "
             "left what the potential was trained on; look at the last frames, try a smaller timestep, or "
             "train on such configurations", update->ntimestep, atom->tag[culprit],
             potential->elements[graph.species[culprit]]);
}

void PairDTMD::tally_energies()
{
  if (!eflag_either) return;
  for (int i = 0; i < atom->nlocal; i++) {
    if (eflag_global) eng_vdwl += evaluation.energies[i];
    if (eflag_atom) eatom[i] += evaluation.energies[i];
  }
}

// With the vector r_j - r_i of an edge and the gradient g of the energy: F_i = +g, F_j = -g. LAMMPS brings what
// ghosts have to their owners.
void PairDTMD::tally_forces()
{
  double **f = atom->f;
  for (size_t edge = 0; edge < graph.n_edges(); edge++) {
    const int i = graph.targets[edge], j = neighbours[edge];
    const double *gradient = &evaluation.gradients[3 * edge];
    for (int k = 0; k < 3; k++) {
      f[i][k] += gradient[k];
      f[j][k] -= gradient[k];
    }
    if (vflag_either) tally_virial(i, j, &graph.vectors[3 * edge], gradient);
  }
}

// Virial -dE/d(strain), symmetric, in LAMMPS's order xx yy zz xy xz yz; half goes to each end of the edge.
void PairDTMD::tally_virial(int i, int j, const double *vector, const double *gradient)
{
  static constexpr int ROW[6] = {0, 1, 2, 0, 0, 1}, COLUMN[6] = {0, 1, 2, 1, 2, 2};
  for (int k = 0; k < 6; k++) {
    const int a = ROW[k], b = COLUMN[k];
    const double value = -0.5 * (vector[a] * gradient[b] + vector[b] * gradient[a]);
    if (vflag_global) virial[k] += value;
    if (vflag_atom) {
      vatom[i][k] += 0.5 * value;
      vatom[j][k] += 0.5 * value;
    }
  }
}
