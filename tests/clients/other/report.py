"""The driver's end of driver.py: runs each case and prints what it gave or raised."""

import json
import sys


def asked():
    return json.load(sys.stdin)


def status_of(error):
    found = getattr(error, "status_code", None)
    return found if found is not None else getattr(getattr(error, "response", None), "status_code", None)


def code_of(error):
    inner = getattr(error, "error", None)
    return getattr(error, "code", None) or getattr(inner, "code", None)


def report(cases):
    seen = {}
    for name, case in cases.items():
        try:
            seen[name] = {"value": case()}
        except Exception as error:  # noqa: BLE001  whatever it is, the test judges it
            kinds = [kind.__name__ for kind in type(error).__mro__]
            seen[name] = {
                "raised": {"kinds": kinds, "status": status_of(error), "code": code_of(error), "message": str(error)}
            }
    json.dump(seen, sys.stdout)
