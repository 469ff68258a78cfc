"""Snakemake whose Slurm executor asks every 2 s how jobs are.

Left to itself it waits 10 s longer each time that none has ended.
"""

import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, value: None)  # type: ignore[assignment]
sys.exit(main())
