#!/usr/bin/env bash
# The MLflow server that the jobs of a cluster report to; see docs/clusters.md. Takes HOST, PORT and BACKEND from the environment.
# The database and the artifacts lie in mlserver/ of the working directory.
set -euo pipefail

host=${HOST:-127.0.0.1}
port=${PORT:-5000}
backend=${BACKEND:-sqlite:///mlserver/mlflow.db}
mkdir -p mlserver/artifacts

case $backend in
  # SQLite takes one writer at a time: one server process, which lets them wait.
  sqlite:*) workers=1 ;;
  postgresql*)
    workers=4
    python -c 'import psycopg2' 2>/dev/null || {
      echo "error: PostgreSQL needs a driver; install it with: pip install psycopg2-binary" >&2
      exit 1
    } ;;
  *)
    echo "error: BACKEND must be sqlite:///FILE or postgresql://USER@HOST/DATABASE" >&2
    exit 1 ;;
esac

# MLflow answers only requests to names that it knows: a web page in someone's browser must not reach it under a name of its own.
names=(localhost 127.0.0.1)
case $host in
  127.0.0.1 | localhost) ;;
  *)
    mapfile -t addresses < <(hostname -I 2>/dev/null | tr ' ' '\n' | grep -F .)
    names+=("$(hostname)" "$(hostname -f 2>/dev/null || hostname)" "${addresses[@]}" "$host")
    echo "warning: no password protects this server; whoever reaches $host:$port can read, change and delete its runs" >&2 ;;
esac
hosts=("${names[@]/%/:$port}")
origins=("${hosts[@]/#/http://}")
join() { local IFS=,; echo "$*"; }

# The address of the database by the environment: a password in it must not be seen in the list of processes.
export MLFLOW_BACKEND_STORE_URI=$backend MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
echo "jobs report here with: export MLFLOW_TRACKING_URI=http://${names[2]:-127.0.0.1}:$port"
exec mlflow server --host "$host" --port "$port" --workers "$workers" --artifacts-destination mlserver/artifacts \
  --allowed-hosts "$(join "${hosts[@]}")" --cors-allowed-origins "$(join "${origins[@]}")"
