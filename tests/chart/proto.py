#!/usr/bin/env python3
"""The protos against buf's rules and against the released schema, proto/released.binpb; a part of `make lint`.

`proto.py release` writes the schema as it is now over the released one: a step of a release, and of nothing else.
"""

import sys

from tools import ROOT, run

PROTO = ROOT / "proto"
RELEASED = PROTO / "released.binpb"


def lint(folder=PROTO):
    """What proto/buf.yaml's rules have against the files in `folder`; "" when nothing."""
    return said(run("buf", "lint", folder))


def broken(folder=PROTO, released=RELEASED):
    """What a program that was made for the released schema would trip over; "" when nothing."""
    return said(run("buf", "breaking", folder, "--against", released))


def release(target=RELEASED):
    """Writes the schema without comments and places, so that it changes only when the schema does."""
    return said(run("buf", "build", PROTO, "--exclude-source-info", "-o", target))


def said(done):
    return (done.stdout + done.stderr).strip() or ("" if done.returncode == 0 else f"buf ended with {done.returncode}")


if __name__ == "__main__":
    problems = [release()] if sys.argv[1:] == ["release"] else [lint(), broken()]
    sys.exit("\n".join(filter(None, problems)) or 0)
