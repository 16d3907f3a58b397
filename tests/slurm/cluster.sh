#!/usr/bin/env bash
# A real Slurm cluster on one Debian machine, for tests: cluster.sh up|down|status|env|off NODE|on NODE
# Each node is a network+pid+uts+ipc+mount namespace with its own hostname, address, process tree and /dev/shm, and
# runs its own slurmd; all of them share this machine's files. munged, mariadbd, slurmdbd and slurmctld run on the
# machine itself, which is also the login node: eval "$(cluster.sh env)", then sbatch, srun, sacct. Needs root.
# $S/small is a file system of 128 MiB that all of them share, for tests of a full disk.
# The nodes hang on a bridge without a way out: no traffic leaves the machine.
set -euo pipefail
umask 022   # a stricter one of the caller's hides munged's socket from its clients, and munged refuses to start
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
S=${SLURM_BED:-/tmp/slurm-cluster/state} L=$S.log   # state, a tmpfs while the cluster is up (databases fsync), and the logs
N=${SLURM_BED_NODES:-4} CPUS=${SLURM_BED_CPUS:-$(getconf _NPROCESSORS_ONLN)} GPUS=${SLURM_BED_GPUS:-2} NET=${SLURM_BED_NET:-10.231.77}
BR=slurmbr0 HEAD=$(hostname -s)
export SLURM_CONF=$S/slurm.conf
die() { echo "cluster.sh: $*" >&2; exit 1; }

pid()   { cat "$S/run/$1.pid" 2>/dev/null || echo 0; }
alive() { grep -qzx "SLURM_CONF=$SLURM_CONF" "/proc/$(pid "$1")/environ" 2>/dev/null; }  # ours, not a recycled pid
start() { # NAME CMD...: in the background, detached, without inherited SIG_IGNs or the lock
  local n=$1; shift; alive "$n" && return
  setsid env --default-signal "$@" >>"$L/$n.log" 2>&1 </dev/null 9>&- & echo $! >"$S/run/$n.pid"; }
stop() { # NAME SIGNAL: and wait; KILL after 10 s
  local i; if alive "$1"; then kill "-$2" "$(pid "$1")"; for i in {1..100}; do alive "$1" || break; sleep .1; done
    if alive "$1"; then kill -KILL "$(pid "$1")"; fi; fi; rm -f "$S/run/$1.pid"; }
wait_for() { # NAME SECONDS CMD...: until CMD succeeds
  local n=$1 t=$((SECONDS + $2)); shift 2
  until "$@" >"$L/wait.log" 2>&1; do
    ((SECONDS < t)) || { tail -n 20 "$L/$n.log" "$L/wait.log" >&2; die "$n: not ready"; }; sleep .1; done; }
ready() { [ "$(sinfo -hNr -t idle,mix,alloc -o %N | sort -u | wc -l)" = "$N" ]; }
back()  { ! sinfo -hNn "$1" -o %T | grep -q 'down\|\*'; }

install() { # mariadb-server-core is enough; without an init, dpkg starts no daemon
  local need=() p; for p in slurmctld slurmd slurm-client slurmdbd mariadb-server-core munge iproute2; do
    dpkg-query -Wf '${Status}' $p 2>/dev/null | grep -q 'ok installed' || need+=($p); done
  ((${#need[@]} == 0)) || apt-cache show slurmd >/dev/null 2>&1 || apt-get update -qq >/dev/null   # a new machine has no lists
  ((${#need[@]} == 0)) || DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${need[@]}" \
    >"$L/apt.log" 2>&1 || { tail "$L/apt.log" >&2; die "apt-get failed (apt-get update first?)"; }; }

conf() {
  local i; mkdir -p "$S"/{run,ctld,spool,db/mysql,dev}
  [ -s "$S/munge.key" ] || (umask 077; head -c 128 /dev/urandom >"$S/munge.key")
  { echo "127.0.0.1 localhost"; echo "$NET.1 $HEAD"
    for ((i=1;i<=N;i++)); do echo "$NET.$((10+i)) node$i"; done; } >"$S/hosts"
  for ((i=0;i<GPUS;i++)); do [ -c "$S/dev/gpu$i" ] || mknod -m 666 "$S/dev/gpu$i" c 1 3; done  # it insists on devices
  echo "Name=gpu File=$S/dev/gpu[0-$((GPUS-1))]" >"$S/gres.conf"
  echo "CgroupPlugin=cgroup/v1" >"$S/cgroup.conf"   # unused, but to autodetect dies where /sys/fs/cgroup is missing
  cat >"$SLURM_CONF" <<EOF
ClusterName=bed
SlurmctldHost=$HEAD($NET.1)
SlurmUser=root
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it may start again: 120 s, or what's here, if at least 5
AuthInfo=socket=$S/run/munge.sock,cred_expire=5
StateSaveLocation=$S/ctld
SlurmdSpoolDir=$S/spool/%n
SlurmctldPidFile=$S/run/slurmctld-self.pid
SlurmdPidFile=$S/run/%n-self.pid
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity   # each task is bound to the CPUs that it was given
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
# a dead node is found after 9 to 12 s; less than 5 here changes nothing
SlurmdTimeout=5
MessageTimeout=10
TCPTimeout=2
# a rank that Slurm ends has time for its checkpoint, also where all nodes share one busy machine
KillWait=30
CompleteWait=0
MinJobAge=3600
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$NET.1
AccountingStoragePass=$S/run/munge.sock
AccountingStorageTRES=gres/gpu
GresTypes=gpu
SlurmdParameters=config_overrides
$(for ((i=1;i<=N;i++)); do echo "NodeName=node$i NodeAddr=$NET.$((10+i)) CPUs=$CPUS Sockets=1 CoresPerSocket=$CPUS RealMemory=4096 Gres=gpu:$GPUS"; done)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=10
PartitionName=low Nodes=ALL MaxTime=INFINITE PriorityTier=1 GraceTime=10
EOF
  (umask 077; cat >"$S/slurmdbd.conf") <<EOF
DbdHost=$HEAD
DbdAddr=$NET.1
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$S/run/munge.sock
PidFile=$S/run/slurmdbd-self.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
EOF
  cat >"$S/my.cnf" <<EOF
[mariadbd]
user=root
datadir=$S/db
socket=$S/run/mysql.sock
skip-networking
skip-grant-tables
innodb-buffer-pool-size=16M
innodb-log-file-size=8M
innodb-autoextend-increment=1
innodb-flush-log-at-trx-commit=0
innodb-doublewrite=0
innodb-lock-wait-timeout=900
EOF
}

node_off() { stop "node$1" KILL; ip netns del "slurm-node$1" 2>/dev/null || :; ip link del "slurmv$1" 2>/dev/null || :; }
node_on() { # I: wire and boot nodeI
  local n=node$1 ns=slurm-node$1 v=slurmv$1; alive "$n" && return; node_off "$1"
  ip netns add "$ns"   # with a MAC that stays, else the others' ARP caches lose a node that comes back
  ip link add "$v" type veth peer name eth0 address "$(printf 02:51:75:72:6d:%02x "$1")" netns "$ns"
  ip link set "$v" master $BR up
  ip -n "$ns" link set lo up; ip -n "$ns" link set eth0 up; ip -n "$ns" addr add "$NET.$((10+$1))/24" dev eth0
  # bash is the node's init: it reaps, and to KILL it (unshare does when it's killed) kills all that the node runs
  start "$n" ip netns exec "$ns" unshare -m -u -i -p --fork --kill-child --mount-proc bash -c '
    hostname "$0"; mount --bind "$1/hosts" /etc/hosts; mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    env --default-signal slurmd -D & wait $!' "$n" "$S"; }

up() {
  mkdir -p "$L"; install
  if ! ip link show $BR >/dev/null 2>&1; then
    if ip -4 -o addr | grep -qF " $NET."; then die "$NET.0/24 is in use here: set SLURM_BED_NET"; fi
    ip link add $BR type bridge; ip addr add "$NET.1/24" dev $BR; ip link set $BR up; fi
  mkdir -p "$S"; mountpoint -q "$S" || { find "$L" -type f ! -name apt.log -delete; mount -t tmpfs -o mode=755,size=1g tmpfs "$S"; }
  # before the nodes, which see no later mount
  mkdir -p "$S/small"; mountpoint -q "$S/small" || mount -t tmpfs -o size=128m tmpfs "$S/small"
  conf
  start munged munged -F --key-file="$S/munge.key" --socket="$S/run/munge.sock" --pid-file="$S/run/munged-self.pid" \
    --log-file="$L/munged.log" --seed-file="$S/run/munge.seed"
  [ -e "$S/db/mysql/proc.frm" ] || { echo 'use mysql;'; cat /usr/share/mysql/mysql_system_tables.sql; } |
    mariadbd --defaults-file="$S/my.cnf" --bootstrap >"$L/bootstrap.log" 2>&1
  start mariadbd mariadbd --defaults-file="$S/my.cnf"
  wait_for munged 120 munge -n -S "$S/run/munge.sock"; wait_for mariadbd 120 test -S "$S/run/mysql.sock"
  MYSQL_UNIX_PORT=$S/run/mysql.sock start slurmdbd slurmdbd -D
  wait_for slurmdbd 120 sacctmgr -n show cluster
  start slurmctld slurmctld -D
  wait_for slurmctld 120 scontrol ping   # a slurmd that's there before it tries again only seconds later
  local i; for ((i=1;i<=N;i++)); do node_on $i; done
  wait_for slurmctld 120 ready; sinfo; }
down() {
  local i d; for i in $(ip netns list | sed -n 's/^slurm-node\([0-9]*\).*/\1/p'); do node_off "$i"; done
  for d in slurmctld slurmdbd mariadbd munged; do stop $d TERM; done
  ip link del $BR 2>/dev/null || :; for d in "$S/small" "$S"; do if mountpoint -q "$d"; then umount "$d"; fi; done; }
status() {
  local d rc=0; for d in munged mariadbd slurmdbd slurmctld $(seq -f node%g "$N"); do
    if alive "$d"; then echo "$d up, pid $(pid "$d")"; else echo "$d down"; rc=1; fi; done
  if alive slurmctld; then sinfo; fi; return $rc; }

[ "$(id -u)" = 0 ] || die "needs root"
case ${1:-} in up|down|on|off) mkdir -p "$(dirname "$S")"; exec 9>"$S.lock"; flock 9;; esac   # one at a time
case ${1:-} in
up|down|status) "$1";;
env) echo "export SLURM_CONF=$SLURM_CONF";;
off) node_off "${2#node}";;   # pull its plug. To cut only its network: ip link set slurmvI down
on)  # a node that's back before its absence was noticed must lose its jobs all the same, as after a reboot
  scontrol update nodename="$2" state=down reason=reboot; node_on "${2#node}"; wait_for "$2" 120 back "$2";;
*) die "usage: $0 up|down|status|env|off NODE|on NODE";;
esac
