#!/usr/bin/env bash
# What the tests of the cluster need: Slurm and munge, from Debian's packages. Their services are not started; the tests start their own.
set -euo pipefail
packages=(munge slurmctld slurmd slurm-client)

PATH="$PATH:/usr/sbin:/sbin"
missing=0
for program in munged slurmctld slurmd sbatch; do command -v "$program" >/dev/null || missing=1; done
((missing)) || exit 0
if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    echo "error: the tests of the cluster need ${packages[*]}; as root on Debian or Ubuntu they are installed by this script," \
        "else ask an administrator for: apt-get install ${packages[*]}" >&2
    exit 1
fi
# A policy that forbids services to start, for the time of the installation.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${packages[@]}"
