import json
import os
import resource
import sqlite3
import tempfile
import time

import flask

VERSION = "one"

app = flask.Flask(__name__)


@app.get("/")
def version():
    return VERSION


@app.get("/slow")
def slow():
    time.sleep(2)
    return "slow but sure"


@app.get("/count")
def count():
    with sqlite3.connect(os.environ["DATABASE"]) as database:
        database.execute("create table if not exists hits (at text)")
        database.execute("insert into hits values (datetime())")
        return str(database.execute("select count(*) from hits").fetchone()[0])


@app.get("/process")
def process():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {name: status[name].split() for name in ("Uid", "Gid", "Groups", "CapPrm", "CapAmb", "NoNewPrivs", "Seccomp")}


@app.get("/limits")
def limits():
    group = open("/proc/self/cgroup").read().strip().rpartition("0::")[2]
    return {"group": group, "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "tmp": tempfile.gettempdir()}


@app.get("/hog")
def hog():
    # Written to: what is only asked for takes no memory.
    return str(len(b"x" * (2 << 30)))


@app.get("/write")
def write():
    answers = {}
    for path in ("/etc/here", "/usr/here", "/srv/web/here", "/srv/web/media/here", "/tmp/here"):
        try:
            open(path, "w").close()
            answers[path] = "written"
        except OSError as error:
            answers[path] = error.strerror
    return answers
