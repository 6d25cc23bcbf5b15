#!/usr/bin/env bash
# A Ray cluster started by hand, one process a machine; each stays in the foreground and ends with Ctrl-C.
#
#   on the head:        hand_started.sh head 10.0.0.1          (its address as the other machines reach it)
#   on every other:     hand_started.sh worker 10.0.0.1:6379
#   then, on the head:  RAY_AUTH_MODE=token nas search RECIPE --run DIR --address 10.0.0.1:6379 --set workers=8
#
# The first start makes a token in ~/.ray/auth_token. Copy that file to the same place on every machine before its
# worker starts: who has the token can run code on the cluster, who does not is refused. It is not encrypted on its way, so
# use a network of your own. Further words go to ray start, for example --num-cpus 8 --num-gpus 2.
set -euo pipefail
export RAY_AUTH_MODE=token

role=${1:?"head or worker"}
place=${2:?"the head's address; for a worker with its port"}
shift 2

case $role in
  head)
    ray get-auth-token --generate > /dev/null
    exec ray start --head --block --disable-usage-stats --include-dashboard=false \
      --node-ip-address="$place" --port="${PORT:-6379}" "$@"
    ;;
  worker)
    exec ray start --block --disable-usage-stats --address="$place" "$@"
    ;;
  *)
    echo "found $role; allowed are head and worker" >&2
    exit 2
    ;;
esac
