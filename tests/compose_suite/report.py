"""Counts checks and prints each as it is made. A wait has a generous bound; how long it took is printed, and is no part of
the check."""

import time


class Report:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def section(self, title):
        print(f"==> {title}", flush=True)

    def check(self, promise, holds, seen=""):
        """One promise: whether it holds, and what was seen if not."""
        if holds:
            self.passed += 1
            print(f"ok   {promise}", flush=True)
        else:
            self.failed += 1
            print(f"FAIL {promise}: {seen}", flush=True)
        return bool(holds)

    def equal(self, promise, seen, wanted):
        return self.check(promise, seen == wanted, f"saw {seen!r}, wanted {wanted!r}")

    def eventually(self, promise, condition, seconds=90, seen=lambda: "it did not come"):
        """Waits for `condition`, and says how long it took."""
        begin = time.monotonic()
        holds = wait_until(condition, seconds)
        return self.check(f"{promise} ({time.monotonic() - begin:.1f} s)", holds, "" if holds else seen())


def wait_until(condition, seconds):
    """Whether `condition` came to hold within `seconds`. It is asked at least once."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)
    return True
