# shellcheck shell=bash
# Hosts made of namespaces, and their processes: the part of slurm/devcluster that knows nothing of Slurm but slurmd.
# Uses what slurm/devcluster defines: checkout, net, state, pids, wait_for, refuse.
# shellcheck disable=SC2154

# --- Processes. A pid file holds the pid and when it started, so that a number used again is never taken for ours.

born() { sed -n '/) Z /!s/.*) //p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; } # nothing for the dead and buried

running() { # NAME
  local pid start
  read -r pid start 2>/dev/null <"$pids/$1" && [ -n "$start" ] && [ "$(born "$pid")" = "$start" ]
}

ended() { ! running "$1"; }

pid_of() { cut -d' ' -f1 "$pids/$1"; }

resume() { ! running "$1" || kill -CONT "$(pid_of "$1")"; } # NAME

record() { echo "$2 $(born "$2")" >"$pids/$1"; } # NAME PID

end() { # NAME SIGNAL SECONDS
  running "$1" || return 0
  resume "$1"
  kill "-$2" "$(pid_of "$1")"
  wait_for "$3" ended "$1" || kill -KILL "$(pid_of "$1")"
  rm -f "$pids/$1"
}

# --- The network: a bridge inside the namespace of `ctl`, one cable from it to each node and to this machine.

namespace() { echo "dc$net-$1"; }

has_namespace() { [ -e "/run/netns/$(namespace "$1")" ]; }

plug() { # HOST NUMBER: its address ends in NUMBER, and so does its hardware's, that neighbours need not learn it anew
  ip link add "$1" netns "$(namespace ctl)" type veth peer name eth0 address "02:00:00:00:00:$(printf %02x "$2")" \
    netns "$(namespace "$1")"
  ip -n "$(namespace ctl)" link set "$1" master bridge up
  configure "$1" eth0 "$2"
}

configure() { # HOST INTERFACE NUMBER
  ip -n "$(namespace "$1")" addr add "$net.$3/24" dev "$2"
  ip -n "$(namespace "$1")" link set "$2" up
  ip -n "$(namespace "$1")" link set lo up
}

make_network() {
  has_namespace ctl && return
  ! ip -o -4 addr | grep -qF " $net." ||
    refuse "The network $net.0/24 is in use here. Expected: a free one. Set DEVCLUSTER_NET."
  ip netns add "$(namespace ctl)"
  ip -n "$(namespace ctl)" link add bridge type bridge
  configure ctl bridge 1
  ip link add "dc$net" type veth peer name host netns "$(namespace ctl)"
  ip -n "$(namespace ctl)" link set host master bridge up
  ip addr add "$net.254/24" dev "dc$net"
  ip link set "dc$net" up
}

# --- The nodes.

start_node() { # NUMBER
  running "n$1" && return
  if ! has_namespace "n$1"; then
    ip netns add "$(namespace "n$1")"
    plug "n$1" "1$1"
  fi
  mkdir -p "$state/spool/n$1" "$state/tmp/n$1"
  # nsenter, not `ip netns exec`, which mounts another /sys. bash stays as the node's first process and buries orphans.
  setsid nsenter --net="/run/netns/$(namespace "n$1")" unshare --uts --mount --pid --fork --kill-child --mount-proc \
    "$BASH" "$checkout/slurm/devcluster" run-node "$1" </dev/null >"$state/log/n$1.out" 2>&1 &
  record "n$1" $!
}

run_node() { # NUMBER; the first process inside the namespaces of a node
  hostname "n$1"
  mount --bind "$state/hosts" /etc/hosts
  local private stage folder
  for private in /tmp /dev/shm; do
    stage=$state/tmp/n$1$private
    mkdir -p "$stage"
    mount -t tmpfs -o mode=1777 tmpfs "$stage"
    while read -r folder; do
      [[ $folder == "$private"/* ]] || continue
      mkdir -p "$stage${folder#"$private"}"
      mount --rbind "$folder" "$stage${folder#"$private"}"
    done <"$state/share"
    mount --move "$stage" "$private"
  done
  slurmd -D -N "n$1"
}

kill_node() { # NUMBER
  running "n$1" || return 0
  ip -n "$(namespace ctl)" link set "n$1" down # first, so that nobody hears it go
  pkill -KILL -P "$(pid_of "n$1")" || true     # the first process of the node; the kernel ends all others with it
  wait_for 10 ended "n$1"
  ip netns del "$(namespace "n$1")"
  rm -f "$pids/n$1"
}

# --- A daemon on the controller's host.

launch() { # NAME COMMAND...
  setsid nsenter --net="/run/netns/$(namespace ctl)" unshare --uts --mount \
    sh -c "hostname ctl && mount --bind '$state/hosts' /etc/hosts && exec \"\$@\"" sh "${@:2}" \
    </dev/null >"$state/log/$1.out" 2>&1 &
  record "$1" $!
}
