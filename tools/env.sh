# Source this in bash or zsh for a shell in which `siamcar`, the node's executables, the built
# interfaces and the environment's Python work:  source tools/env.sh
#
# FASTRTPS_DEFAULT_PROFILES_FILE, and FASTDDS_DEFAULT_PROFILES_FILE for Fast DDS 3, are set to the
# shipped shared-memory profile, unless one of them is set already or /dev/shm has less than half a
# gigabyte free: Fast DDS would complain and do without.

if [ -n "${ZSH_VERSION:-}" ]; then
  _siamcar_file=${(%):-%x}
  _siamcar_shell=zsh
elif [ -n "${BASH_VERSION:-}" ]; then
  _siamcar_file=${BASH_SOURCE[0]}
  _siamcar_shell=bash
else
  echo "tools/env.sh is for bash and zsh" >&2
  return 1
fi
_siamcar_root=$(cd "$(dirname "$_siamcar_file")/.." && pwd)

# Puts each folder first in the variable, unless it is in it already.
_siamcar_prepend() {
  _siamcar_variable=$1
  shift
  for _siamcar_folder in "$@"; do
    eval "_siamcar_value=\${$_siamcar_variable:-}"
    case ":$_siamcar_value:" in
      *":$_siamcar_folder:"*) ;;
      *) eval "export $_siamcar_variable=\"\$_siamcar_folder\${_siamcar_value:+:\$_siamcar_value}\"" ;;
    esac
  done
}

if [ ! -f "$_siamcar_root/install/local_setup.$_siamcar_shell" ] ||
  [ ! -f "$_siamcar_root/.venv/stamp" ]; then
  echo "siamcar_ros is not built yet: run 'make build' in $_siamcar_root first" >&2
  unset _siamcar_file _siamcar_shell _siamcar_root
  unset -f _siamcar_prepend
  return 1
fi

# ROS's setup files expect unset variables to read as empty.
_siamcar_nounset=
case $- in *u*) _siamcar_nounset=yes && set +u ;; esac

_siamcar_ros=$(cat "$_siamcar_root/.venv/ros-prefix")
if [ -n "$_siamcar_ros" ]; then
  # ROS_DISTRO says nothing: ROS's container images set it without sourcing anything.
  case ":${AMENT_PREFIX_PATH:-}:" in
    *":$_siamcar_ros:"*) ;;
    *) . "$_siamcar_ros/setup.$_siamcar_shell" ;;
  esac
else
  _siamcar_prepend AMENT_PREFIX_PATH "$_siamcar_root/.venv"
  # The wheels' libraries. With these set, their start-up hook need not run every Python twice.
  for _siamcar_folder in "$_siamcar_root"/.venv/lib/python3.*/site-packages/ros_*.libs \
    "$_siamcar_root/.venv/lib"; do
    _siamcar_prepend LD_LIBRARY_PATH "$_siamcar_folder"
  done
  export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
fi
. "$_siamcar_root/install/local_setup.$_siamcar_shell"

export VIRTUAL_ENV="$_siamcar_root/.venv"
_siamcar_prepend PATH "$_siamcar_root/install/siamcar_ros/bin" \
  "$_siamcar_root/install/siamcar_ros/lib/siamcar_ros" "$VIRTUAL_ENV/bin"
_siamcar_free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
_siamcar_profile=${FASTRTPS_DEFAULT_PROFILES_FILE:-${FASTDDS_DEFAULT_PROFILES_FILE:-}}
if [ -z "$_siamcar_profile" ] && [ "${_siamcar_free:-0}" -ge 524288 ]; then
  _siamcar_profile=$_siamcar_root/config/fastdds/shared_memory.xml
fi
if [ -n "$_siamcar_profile" ]; then
  export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE:-$_siamcar_profile}"
  export FASTDDS_DEFAULT_PROFILES_FILE="${FASTDDS_DEFAULT_PROFILES_FILE:-$_siamcar_profile}"
fi

[ -z "$_siamcar_nounset" ] || set -u
unset _siamcar_file _siamcar_shell _siamcar_root _siamcar_ros _siamcar_variable _siamcar_value \
  _siamcar_folder _siamcar_free _siamcar_profile _siamcar_nounset
unset -f _siamcar_prepend
