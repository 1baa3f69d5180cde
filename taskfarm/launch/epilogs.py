"""What help shows below the options of a command: examples and exit codes."""

_READER = """
exit codes:
  0   done
  2   wrong use, or FILE cannot be read
"""

EPILOGS = {
    "taskfarm": """
examples:
  python -m taskfarm run -n auto job.py     run a job on all cores of this machine
  python -m taskfarm run --help             show all options of a run
  python -m taskfarm info                   check the installation

Each command has its own --help, with examples and exit codes.
""",
    "run": """
What follows the job goes to the job. Times are in seconds unless an option says otherwise.

examples:
  python -m taskfarm run -n auto job.py                  all cores of this machine
  python -m taskfarm run -n 4 job.py --size 100          4 ranks; --size goes to the job
  mpiexec -np 16 python -m taskfarm run job.py           the ranks of mpiexec
  python -m taskfarm run -n 4 --journal run.db --resume --walltime 01:00:00 job.py
                                                         stop before an hour is over, and go on
                                                         next time where it stopped

exit codes:
  0     done; otherwise the job's own code
  1     the job raised an exception
  2     wrong use, found before any work
  3     workers were lost, with --fail-on-loss
  75    the time was up, or SIGTERM or SIGUSR1 came: go on with --resume
  130   Ctrl-C
Open MPI's own mpiexec exits with 1 after Ctrl-C or SIGTERM.
""",
    "shell": """
The words are GNU parallel's: {} {.} {/} {//} {/.} {#} {%} {1} {1.}, ::: ::::, :::+ and ::::+.

examples:
  mpiexec -n 64 python -m taskfarm shell --joblog log.tsv tasks.txt
                                                         a file of commands, one a line
  python -m taskfarm shell -n 9 'convert {} {/.}.png' ::: *.tif
                                                         one command for each argument
  python -m taskfarm shell -n 9 --joblog log.tsv --resume-failed --retries 2 tasks.txt
                                                         go on where that log ends

exit codes:
  0     all commands succeeded
  1     a command failed
  2     wrong use, found before any work
  75    the time was up, or SIGTERM or SIGUSR1 came: go on with --resume
  130   Ctrl-C
With --halt now,fail=N the code is that of the command that ended the run.
""",
    "bench": """
examples:
  python -m taskfarm bench -n 4                          4 ranks of this machine, half a minute
  mpiexec -np 64 python -m taskfarm bench --json         an allocation, for programs to read

exit codes:
  0   done
  2   wrong use, such as one rank
""",
    "kernel": """
The options of run that follow apply to each start of the kernel.

examples:
  python -m taskfarm kernel install -n 8                 in this environment
  python -m taskfarm kernel install -n 64 --name big --gpus-per-node 4
  jupyter console --kernel taskfarm

exit codes:
  0   done
  2   wrong use, or ipykernel is not installed
""",
    "journal": f"""
examples:
  python -m taskfarm journal run.db
  python -m taskfarm journal run.db --export results.csv
{_READER}""",
    "top": f"""
examples:
  python -m taskfarm run -n 4 --status run.status job.py     keeps the file
  python -m taskfarm top run.status                          shows it, from another shell
  python -m taskfarm top run.status --explain 17             why task 17 waits
{_READER}""",
    "stack": f"""
examples:
  python -m taskfarm stack run.status
  python -m taskfarm stack run.status 3 4                    of ranks 3 and 4
{_READER}""",
    "trace": f"""
example:
  python -m taskfarm trace run.json.gz
{_READER}""",
    "info": """
examples:
  python -m taskfarm info
  mpiexec -np 4 python -m taskfarm info                      the ranks that mpiexec starts

exit codes:
  0   no trouble
  2   something is wrong with the installation or the launch; it says what
""",
}
"""The texts by command; that of ``python -m taskfarm`` itself under ``taskfarm``."""
