#!/bin/sh
# Usage: two_hosts.sh PROGRAM ARGUMENTS...
# Runs PROGRAM by mpirun on two hosts: network namespaces with their own host names, joined by a veth pair. Exit code 77
# where the machine does not allow them.
set -u
first=hfa$$ second=hfb$$ folder=$(mktemp -d)
skip() { echo "skipped: $1"; exit 77; }
cleanup() {
  ip netns del $first 2>/dev/null
  ip netns del $second 2>/dev/null
  rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
command -v ip >/dev/null || skip "there is no ip (Debian: iproute2)"
[ "$(id -u)" = 0 ] || skip "network namespaces need root"
ip netns add $first 2>/dev/null && ip netns add $second 2>/dev/null || skip "this machine does not allow network namespaces"
ip link add $first netns $first type veth peer name $second netns $second 2>/dev/null || skip "this machine does not allow veth links"
for host in "$first 10.77.0.1" "$second 10.77.0.2"; do
  name=${host% *}; address=${host#* }
  ip -n $name addr add $address/24 dev $name && ip -n $name link set $name up && ip -n $name link set lo up || exit 1
done
# mpirun starts its daemon on the other host by this in place of ssh; "HOST COMMAND...".
cat > "$folder/agent" <<AGENT
#!/bin/sh
shift
exec ip netns exec $second unshare --uts sh -c "hostname $second; export TMPDIR=$folder/second; \$*"
AGENT
chmod +x "$folder/agent"
mkdir "$folder/first" "$folder/second"
export TMPDIR="$folder/first"
ip netns exec $first unshare --uts sh -c "hostname $first; exec \"\$@\"" sh \
  mpirun --allow-run-as-root -np 2 --host 10.77.0.1:1,10.77.0.2:1 --map-by node \
  --mca plm_rsh_agent "$folder/agent" --mca btl tcp,self --mca pml ob1 \
  --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 \
  -x MASTER_ADDR=10.77.0.1 -x MASTER_PORT=29517 -x OMP_NUM_THREADS=1 "$@"
