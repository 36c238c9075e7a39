# shellcheck shell=bash
# What tools/setup, tools/build and tools/test share. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { printf '%s\n' "$*"; }

fail() {
  printf 'siamcar_ros: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

# step TITLE LOG COMMAND...: runs the command with its output in LOG and shows the seconds it takes;
# if it fails, shows the end of the output.
step() {
  local title=$1 log=$2 start=$SECONDS status=0
  shift 2
  printf '\n$ %s\n' "$*" >>"$log"
  # Without the trap the shell lets it ignore SIGINT, and it would outlive Ctrl-C.
  (trap - INT && "$@") >>"$log" 2>&1 &
  local child=$!
  if [ -t 1 ]; then
    while kill -0 "$child" 2>/dev/null; do
      printf '\r  %-58s %4d s' "$title" $((SECONDS - start))
      sleep 0.5
    done
    printf '\r'
  fi
  wait "$child" || status=$?
  printf '  %-58s %4d s%s\n' "$title" $((SECONDS - start)) "$([ "$status" -eq 0 ] || echo '  FAILED')"
  if [ "$status" -ne 0 ]; then
    tail -n 25 "$log" | sed 's/^/    | /' >&2
    printf '  the whole log: %s\n' "$log" >&2
  fi
  return "$status"
}

# has_commands NAME...: whether all of them are there; `command -v` is content with one.
has_commands() {
  local name
  for name in "$@"; do command -v "$name" >/dev/null || return 1; done
}

# Prints the prefix of the ROS 2 installation to use: the sourced one, else /opt/ros/jazzy, else
# another distribution; nothing if there is none. SIAMCAR_ROS names another prefix, or "none" to use
# the wheels in any case.
find_ros() {
  local prefix distro
  case ${SIAMCAR_ROS:-} in
    none) return 0 ;;
    ?*)
      [ -f "$SIAMCAR_ROS/setup.bash" ] || fail "SIAMCAR_ROS=$SIAMCAR_ROS has no setup.bash"
      printf '%s' "$SIAMCAR_ROS"
      return 0
      ;;
  esac
  if [ -n "${ROS_DISTRO:-}" ]; then
    local IFS=:
    for prefix in ${AMENT_PREFIX_PATH:-}; do
      if [ -f "$prefix/share/rclpy/package.xml" ] && [ -f "$prefix/setup.bash" ]; then
        printf '%s' "$prefix"
        return 0
      fi
    done
  fi
  for distro in jazzy kilted lyrical rolling humble; do
    if [ -f "/opt/ros/$distro/setup.bash" ]; then
      printf '%s' "/opt/ros/$distro"
      return 0
    fi
  done
}

# refuse_humble: ends with an error if the sourced ROS is too old for the node.
refuse_humble() {
  [ "${ROS_DISTRO:-}" != humble ] ||
    fail "ROS 2 Humble's rclpy lacks what the node needs: Jazzy or later is needed" \
      "On a Jetson with JetPack 6 run it in an arm64 container of Jazzy (--runtime nvidia --ipc=host)." \
      "SIAMCAR_ROS=none uses Python wheels in place of the installed ROS."
}

# Prints the constraints for pip; not PyTorch's version if SIAMCAR_TORCH_INDEX names another index.
constraints() {
  if [ -n "${SIAMCAR_TORCH_INDEX:-}" ]; then
    grep -v '^torch==' "$root/tools/constraints.txt"
  else
    cat "$root/tools/constraints.txt"
  fi
}

# Sources a ROS setup file, which expects unset variables to read as empty.
source_ros() {
  set +u
  # shellcheck disable=SC1090,SC1091
  source "$1/setup.bash"
  set -u
}

# has_ros_package NAME: whether a prefix of the sourced ROS holds the package.
has_ros_package() {
  local prefix IFS=:
  for prefix in ${AMENT_PREFIX_PATH:-}; do
    [ -f "$prefix/share/$1/package.xml" ] && return 0
  done
  return 1
}
