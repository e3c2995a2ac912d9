# What a worker's Python runs first: it refuses an interpreter that the module cannot live in, then loads the module.
#
# Descriptors from the master: 3 this text, 4 the assignment, 5 the module, and those that the assignment names. Every
# Python must be able to read this file, Python 2 as well, to be refused by it; and it must not need any package.
import os
import sys


# appserver::assignment::DUMP_SIGNAL
DUMP_SIGNAL = 63


def start():
    import json

    os.lseek(4, 0, os.SEEK_SET)
    with os.fdopen(4, "rb") as file:
        text = file.read().decode("utf-8")
    assignment = json.loads(text)
    control = assignment["control"]

    why = unsuitable()
    if why is None:
        os.set_inheritable(5, False)
        for name in ("listener", "control", "scoreboard", "dump"):
            os.set_inheritable(assignment[name], False)
        behave(assignment)
        try:
            return load().Worker(text)
        except Exception as error:
            why = "%s cannot load the module of stack: %s" % (sys.executable, error)
    report = json.dumps({"Failed": {"why": why, "traceback": ""}}) + "\n"
    os.write(control, report.encode())
    sys.exit(1)


def unsuitable():
    """Why this interpreter cannot load the module; None if it can."""
    version = ".".join(map(str, sys.version_info[:3]))
    here = sys.executable or "this interpreter"
    if sys.version_info < (3, 10):
        return "%s is Python %s; stack needs CPython 3.10 or later" % (here, version)
    name = sys.implementation.name
    if name != "cpython":
        return "%s is %s; stack needs CPython 3.10 or later" % (here, name)
    # PEP 703: such a build has an ABI of its own. Cheaper to ask than sysconfig, which reads the build's whole Makefile.
    if "t" in getattr(sys, "abiflags", ""):
        return "%s is a free-threaded build of Python %s; stack needs the ordinary build" % (here, version)
    return None


def behave(assignment):
    """Makes the process what an app expects, before any of its code runs."""
    import faulthandler
    import signal

    root = assignment["root"]
    # `-c` puts '' there, unless the environment asks for a safe path.
    if sys.path and sys.path[0] == "":
        sys.path[0] = root
    else:
        sys.path.insert(0, root)
    entry = assignment["entry"]
    sys.argv = [entry["module"] + ":" + entry["attribute"] + ("()" if entry["factory"] else "")]
    # A crash in C code shows where each thread was.
    faulthandler.enable()
    # And at the master's signal it shows where they are, whoever holds the GIL.
    faulthandler.register(DUMP_SIGNAL, file=assignment["dump"], all_threads=True, chain=False)
    # The pipes belong to the master, which writes whole lines; a block-buffered print would come minutes late.
    sys.stdout.reconfigure(line_buffering=True)
    sys.stderr.reconfigure(line_buffering=True)

    # The master tells a worker to leave over the control socket. A signal to the whole group (systemd, a terminal) must not
    # end requests that still run. An app may set its own handlers; what it forks gets the defaults back, so that
    # multiprocessing can terminate its children.
    def leave_it_to_the_master(number, frame):
        pass

    defaults = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}

    def restore():
        for number, default in defaults.items():
            if signal.getsignal(number) is leave_it_to_the_master:
                signal.signal(number, default)

    for number in defaults:
        signal.signal(number, leave_it_to_the_master)
    os.register_at_fork(after_in_child=restore)


def load():
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_file_location

    path = "/proc/self/fd/5"
    spec = spec_from_file_location("_stack", path, loader=ExtensionFileLoader("_stack", path))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["_stack"] = module
    os.close(5)
    return module


worker = start()
# From here on `__main__` is as empty as an interactive one: what multiprocessing copies of it is harmless.
for name in ("DUMP_SIGNAL", "start", "unsuitable", "behave", "load", "os", "name"):
    globals().pop(name, None)
sys.exit(worker.run())
