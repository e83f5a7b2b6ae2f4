"""The bar is drawn on a terminal, alone and under mpirun; a short loop leaves no line in a log."""
import os
import pty
import subprocess
import sys

PROBE = os.path.join(os.environ["AM_PROGRAMS"], "runtime_probe")
MPIRUN = os.environ["AM_MPIRUN"].split()
BAD = 0


def check(held, text, output):
    global BAD
    if not held:
        BAD += 1
        print(f"FAILED: {text}\n    {output!r}")


def on_terminal(command, term="xterm"):
    """Exit code and output of a command whose stderr is a terminal."""
    leader, follower = pty.openpty()
    job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=follower, env=dict(os.environ, TERM=term))
    os.close(follower)
    output = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the terminal is closed at the other end
            break
        if not piece:
            break
        output += piece
    os.close(leader)
    return job.wait(), output.decode()


for command in ([PROBE], MPIRUN + ["-n", "2", PROBE]):
    code, output = on_terminal(command + ["progress", "-1", "1"])
    check(code == 0, "exit code", (code, output))
    check(output.count("\r\x1b[Kreading [") >= 3, "a bar that is redrawn", output)
    check("\r\x1b[Khalf way\r\n" in output, "a line above the bar", output)
    check(output.count("reading: 100 B in") == 1, "one last line", output)

code, output = on_terminal([PROBE, "progress", "-1", "0.5"], term="dumb")
check("\x1b" not in output, "no control codes on a dumb terminal", output)

run = subprocess.run(MPIRUN + ["-n", "2", PROBE, "progress", "-1", "0.5"], capture_output=True,
                     text=True, stdin=subprocess.DEVNULL)
check(run.returncode == 0 and run.stderr == "half way\n", "only the text in a log", run.stderr)
check(run.stdout == '{"mode":"progress"}\n', "one result line", run.stdout)
sys.exit(BAD != 0)
