"""A terminal with `attune shell` in it: types lines, as a person does, and tells what is shown.

    python3 shell_terminal.py PROGRAM shell ARGUMENT…

Each line of standard input is typed, and Enter pressed. For each, a line of standard output is a JSON text: what the
terminal showed from then on until the shell asked for the next line, without control sequences. The end of standard
input is Ctrl-D, and the program's exit code that of the shell. It needs Python's own library only.
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import sys
import termios
import time

# The editor asks where the cursor is when it begins a line, and once only; what it is told.
ASKED = b"\x1b[6n"
TOLD = b"\x1b[1;1R"
# The cursor is shown again: the prompt has been painted.
PAINTED = b"\x1b[?25h"
CONTROL = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\^_=>78]|\r")

ROWS, COLUMNS = 40, 200
# A loaded machine is slow.
PATIENCE_SECONDS = 300
# What the terminal takes at once: less than its queue holds.
TYPED_MAX = 256


class Terminal:
    def __init__(self, command):
        self.process, self.side = pty.fork()
        if self.process == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
                os.environ.update(TERM="xterm", NO_COLOR="1")
                os.execv(command[0], command)
            finally:
                os._exit(127)
        self.shown = b""

    def exchange(self, typed, until):
        """Types, and gives what is shown before a sequence, which is taken away with it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while typed or until not in self.shown:
            left = max(0, end - time.monotonic())
            readable, writable, _ = select.select([self.side], [self.side] if typed else [], [], left)
            if not readable and not writable:
                raise SystemExit(f"the shell says nothing more: {self.shown!r}")
            if readable:
                self.read()
            if writable:
                typed = typed[os.write(self.side, typed[:TYPED_MAX]) :]
        shown, _, self.shown = self.shown.partition(until)
        return shown

    def read(self):
        try:
            read = os.read(self.side, 1 << 16)
        except OSError:
            # Linux says so when the other side is closed.
            read = b""
        if not read:
            raise SystemExit(f"the shell has ended: {self.shown!r}")
        self.shown += read

    def end(self):
        """Presses Ctrl-D and gives the exit code."""
        os.write(self.side, b"\x04")
        try:
            while os.read(self.side, 1 << 16):
                pass
        except OSError:
            pass
        _, status = os.waitpid(self.process, 0)
        return os.waitstatus_to_exitcode(status)


def main():
    terminal = Terminal(sys.argv[1:])
    terminal.exchange(b"", ASKED)
    terminal.exchange(TOLD, PAINTED)
    for line in iter(sys.stdin.readline, ""):
        shown = terminal.exchange(line.rstrip("\n").encode() + b"\r", ASKED)
        terminal.exchange(TOLD, PAINTED)
        print(json.dumps(CONTROL.sub(b"", shown).decode("utf-8", "replace")), flush=True)
    return terminal.end()


if __name__ == "__main__":
    sys.exit(main())
