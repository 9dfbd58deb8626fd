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

PairDTMD::PairDTMD(LAMMPS *lmp) : Pair(lmp), device("cpu"), n_threads(1), guards(lmp, instance_me)
{
  single_enable = 0;
  restartinfo = 0;    // a path of this machine has no place in a restart file: pair_coeff is given again
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;    // the virial comes from the edges, see tally_virial
  centroidstressflag = CENTROID_NOTAVAIL;
  nextra = Guards::N_VALUES;
  pvector = guards.values;
}

PairDTMD::~PairDTMD()
{
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairDTMD::settings(int narg, char **arg)
{
  committee.reset();    // a repeated pair_style wants its pair_coeff again
  if (allocated) clear_coefficients();
  std::string wish = "auto";
  guards.settings();
  n_threads = comm->nthreads;    // LAMMPS's own setting, OMP_NUM_THREADS
  for (int k = 0; k < narg; k += 2) {
    const std::string keyword = arg[k];
    const std::string value = k + 1 < narg ? arg[k + 1] : "nothing";
    if (keyword == "device" && (value == "cpu" || value == "cuda" || value == "auto"))
      wish = value;
    else if (keyword == "threads" && k + 1 < narg)
      n_threads = utils::inumeric(FLERR, value, false, lmp);
    else if (k + 1 >= narg || !guards.setting(keyword, value))
      error->all(FLERR, "pair_style dtmd does not know `{} {}`; write: pair_style dtmd [device cpu|cuda|auto] "
                 "[threads N] [max_force F] [extrapolation yes|no] [last_good FILE]", keyword, value);
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
  if (committee)
    error->all(FLERR, "there are two pair_coeff lines for dtmd; write one, with all files of a committee in it, or "
               "repeat pair_style dtmd first to change the potential");
  if (!allocated) allocate();
  // Elements have neither dots nor slashes.
  const int elements = std::find_if(arg + 3, arg + narg, [](const char *word) { return !strpbrk(word, "./"); }) - arg;
  load({arg + 2, arg + elements});
  map_elements(narg - elements, arg + elements);
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
  clear_coefficients();
}

void PairDTMD::clear_coefficients()
{
  for (int i = 1; i <= atom->ntypes; i++) std::fill_n(setflag[i] + 1, atom->ntypes, 0);
}

void PairDTMD::load(const std::vector<std::string> &paths)
{
  std::string problem;
  try {
    committee = std::make_unique<dtmd::Committee>(paths, device, comm->nprocs > 1);
  } catch (const std::exception &failure) {
    problem = failure.what();
  }
  fail_if(problem);
  if (!committee->per_atom_energy && comm->nprocs > 1)
    error->all(FLERR, "{}: the energy of a pooled readout comes from the sum over all atoms, which are on {} MPI "
               "ranks here; run `lmp -in FILE` without mpirun, or train with model: {{readout: per_atom}}",
               join(paths), comm->nprocs);
  for (size_t m = 0; m < paths.size(); m++)
    utils::logmesg(lmp, "dtmd: potential {}, elements {}, cutoff {} Angstrom, {}, device {}, {} thread{}\n",
                   paths[m], join(committee->first().elements), committee->first().cutoff,
                   committee->member(m).dtype, device, n_threads, n_threads == 1 ? "" : "s");
  guards.loaded(*committee);
}

void PairDTMD::map_elements(int n_symbols, char **symbols)
{
  if (n_symbols != atom->ntypes)
    error->all(FLERR, "pair_coeff names {} elements for {} atom types; write one symbol for each type after "
               "the file name, of those the potential knows: {}", n_symbols, atom->ntypes,
               join(committee->first().elements));
  species_of_type.assign(atom->ntypes + 1, -1);
  const auto &known = committee->first().elements;
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
  check_neighbours();
  neighbor->add_request(this, NeighConst::REQ_FULL);

  comm_forward = committee->width_forward;
  comm_reverse = committee->width_reverse;
  // pair_style hybrid has taken the sizes of its styles before pair_coeff
  force->pair->comm_forward = std::max(force->pair->comm_forward, comm_forward);
  force->pair->comm_reverse = std::max(force->pair->comm_reverse, comm_reverse);

  std::vector<std::string> symbols(atom->ntypes + 1);
  for (int type = 1; type <= atom->ntypes; type++) symbols[type] = committee->first().elements[species_of_type[type]];
  guards.begin_run(symbols);
}

void PairDTMD::check_masses()
{
  if (!atom->mass) return;    // atom styles with a mass for each atom have none for a type
  for (int type = 1; type <= atom->ntypes; type++) {
    if (!atom->mass_setflag[type]) continue;    // LAMMPS itself refuses to run without masses
    const auto species = species_of_type[type];
    const double expected = committee->first().masses[species];
    if (std::fabs(atom->mass[type] - expected) > MASS_TOLERANCE)
      error->all(FLERR, "atom type {} has mass {} u, but pair_coeff says it is {} ({} u); check the order of "
                 "the elements in pair_coeff, or the mass of the type", type, atom->mass[type],
                 committee->first().elements[species], expected);
  }
}

// Without all atoms and pairs within the cutoff the forces would be wrong, and nothing would show it.
void PairDTMD::check_neighbours()
{
  struct Open : Comm {
    static int group(const Comm *comm) { return comm->*(&Open::bordergroup); }
  };
  if (neighbor->nex_type || neighbor->nex_group || neighbor->nex_mol)
    error->all(FLERR, "neigh_modify exclude takes away pairs that the potential needs; remove it (atoms that are not "
               "to move are held by: fix ID GROUP setforce 0.0 0.0 0.0)");
  if (neighbor->includegroup)
    error->all(FLERR, "neigh_modify include takes away pairs that the potential needs; remove it");
  if (Open::group(comm))
    error->all(FLERR, "comm_modify group takes away atoms that the potential needs; write: comm_modify group all");
}

double PairDTMD::init_one(int, int)
{
  return committee->first().cutoff;
}

void PairDTMD::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  if (eflag_atom && !committee->per_atom_energy)
    error->all(FLERR, "this potential gives the energy of the whole system only (pooled readout), so there "
               "is no energy per atom; remove compute pe/atom, or train a model with a per-atom readout");
  if (list->listskip)
    error->all(FLERR, "pair_style dtmd needs all pairs of atoms; write pair_style hybrid/overlay, "
               "and: pair_coeff * * dtmd model.lammps.pt ...");

  build_graph();
  try {
    committee->evaluate(graph, comm->nprocs > 1 ? this : nullptr);
  } catch (const std::exception &problem) {
    error->one(FLERR, "step {}: {}", update->ntimestep, problem.what());
  }
  guards.check(graph, *committee);
  for (int i = 0; i < atom->nlocal; i++)
    for (int k = 0; k < 3; k++) atom->f[i][k] += committee->forces[3 * i + k];
  tally_energies();
  if (vflag_either) tally_virials();
}

void *PairDTMD::extract_peratom(const char *name, int &n_columns)
{
  n_columns = 0;
  return strcmp(name, "deviation") == 0 && committee && committee->size() > 1 ? committee->deviations.data() : nullptr;
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
  const double cutoff_squared = committee->first().cutoff * committee->first().cutoff;
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

void PairDTMD::tally_energies()
{
  if (!eflag_either) return;
  for (int i = 0; i < atom->nlocal; i++) {
    if (eflag_global) eng_vdwl += committee->energies[i];
    if (eflag_atom) eatom[i] += committee->energies[i];
  }
}

void PairDTMD::tally_virials()
{
  for (size_t edge = 0; edge < graph.n_edges(); edge++)
    tally_virial(graph.targets[edge], neighbours[edge], &graph.vectors[3 * edge], &committee->gradients[3 * edge]);
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
