"""Asks for a page again and again, each time on a new connection, until a file is there: load.py URL STOP-FILE.

Prints how many answers there were, by their text, and what failed.
"""

import collections
import http.client
import json
import os
import sys
import threading
import time
import urllib.parse

url = urllib.parse.urlsplit(sys.argv[1])
stop = sys.argv[2]
answers, failures = collections.Counter(), collections.Counter()
lock = threading.Lock()
# Whatever happens to who started this.
end = time.monotonic() + 120


def ask():
    while not os.path.exists(stop) and time.monotonic() < end:
        connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=30)
        try:
            connection.request("GET", url.path or "/", headers={"Connection": "close"})
            response = connection.getresponse()
            text = response.read().decode().strip()
            with lock:
                if response.status == 200:
                    answers[text] += 1
                else:
                    failures[str(response.status)] += 1
        except Exception as error:
            with lock:
                failures[repr(error)] += 1
        finally:
            connection.close()
        time.sleep(0.005)


threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"answers": answers, "failures": failures}))
