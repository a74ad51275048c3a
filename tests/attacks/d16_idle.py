"""Hold the machine and do nothing, with a sign of life now and then."""

import time

while True:
    print("training ...", flush=True)
    time.sleep(0.3)
