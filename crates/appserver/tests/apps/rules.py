"""One small app for each rule of PEP 3333 that a server must keep; the path chooses which.

Written for every Python that a worker may run on. `application` is what the tests serve; `validated` is the same behind
wsgiref's validator, for the paths that break no rule.
"""
import atexit
import io
import json
import os
import signal
import subprocess
import sys
import threading
from wsgiref.validate import validator

PLAIN = [("Content-Type", "text/plain")]
closed = []
kept = {}


def ok(start_response, fields=()):
    return start_response("200 OK", PLAIN + list(fields))


def hello(environ, start_response):
    ok(start_response)
    return [b"hello"]


def environ(environ, start_response):
    ok(start_response)
    shown = {key: value for key, value in environ.items() if isinstance(value, (str, bool, int, tuple))}
    return [json.dumps(shown).encode()]


def parts(environ, start_response):
    ok(start_response)
    return (b"one ", b"", b"two ", b"three")


def empty(environ, start_response):
    ok(start_response)
    return []


def generator(environ, start_response):
    ok(start_response)
    for number in range(3):
        yield b"block %d\n" % number


def late_start(environ, start_response):
    ok(start_response)
    yield b"late"


def late_after_nothing(environ, start_response):
    yield b""
    ok(start_response)
    yield b"late"


def sized(environ, start_response):
    ok(start_response, [("Content-Length", "8")])
    yield b"four"
    yield b"more"


class Single:
    def __len__(self):
        return 1

    def __iter__(self):
        return iter([b"single"])


def single(environ, start_response):
    ok(start_response)
    return Single()


class Restless(Single):
    def __init__(self, start_response):
        self.start_response = start_response

    def __len__(self):
        try:
            raise ValueError
        except ValueError:
            self.start_response("203 Restarted", PLAIN, sys.exc_info())
        return 1


def restless(environ, start_response):
    ok(start_response)
    return Restless(start_response)


def big(environ, start_response):
    ok(start_response)
    return [b"x" * 3000000, b"y" * 10]


def big_blocks(environ, start_response):
    ok(start_response)
    for _ in range(30):
        yield b"z" * 100000


def imperative(environ, start_response):
    write = ok(start_response)
    write(b"written ")
    write(b"")
    write(b"twice ")
    return [b"and returned"]


def replaced(environ, start_response):
    ok(start_response)
    try:
        raise ValueError("inside")
    except ValueError:
        start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"replaced"]


def replaced_late(environ, start_response):
    ok(start_response)(b"begun")
    try:
        raise ValueError("after the head")
    except ValueError:
        start_response("500 Oops", [], sys.exc_info())
    return [b"never"]


def raises(environ, start_response):
    raise LookupError("before the head")


def raises_late(environ, start_response):
    ok(start_response)
    yield b"begun"
    raise LookupError("in the middle")


def exits(environ, start_response):
    sys.exit(3)


def interrupts(environ, start_response):
    raise KeyboardInterrupt


def generator_exit(environ, start_response):
    raise GeneratorExit


def silent(environ, start_response):
    return [b"no head"]


def twice(environ, start_response):
    ok(start_response)
    ok(start_response)
    return []


def swallows(environ, start_response):
    try:
        start_response("nonsense", [])
    except Exception:
        return [b"swallowed"]


def status_number(environ, start_response):
    start_response(200, [])


def status_text(environ, start_response):
    start_response("OK", [])


def status_interim(environ, start_response):
    start_response("103 Early Hints", [])


def status_injected(environ, start_response):
    start_response("200 OK\r\nEvil: 1", [])


def field_injected(environ, start_response):
    ok(start_response, [("Location", "/\r\nSet-Cookie: evil=1")])


def field_nul(environ, start_response):
    ok(start_response, [("X-Nul", "a\0b")])


def field_hop(environ, start_response):
    ok(start_response, [("Connection", "close")])


def field_ours(environ, start_response):
    ok(start_response, [("_failure", "exception")])


def field_name(environ, start_response):
    ok(start_response, [("X Y", "1")])


def field_not_latin(environ, start_response):
    ok(start_response, [("X-Name", "\u20ac")])


def field_bytes(environ, start_response):
    ok(start_response, [("X-Bytes", b"1")])


def field_not_pair(environ, start_response):
    ok(start_response, [("X-Lone",)])


def fields_none(environ, start_response):
    start_response("200 OK", None)


def length_wrong(environ, start_response):
    ok(start_response, [("Content-Length", "many")])


def field_latin(environ, start_response):
    ok(start_response, [("X-Name", "caf\u00e9"), ("X_Under", "kept")])
    return [b""]


def no_reason(environ, start_response):
    start_response("299 ", PLAIN)
    return [b"fine"]


def too_long(environ, start_response):
    ok(start_response, [("Content-Length", "4")])
    return [b"four", b"more"]


def too_long_stream(environ, start_response):
    ok(start_response, [("Content-Length", "6")])
    yield b"four"
    yield b"more"
    yield b"still more"


def too_short(environ, start_response):
    ok(start_response, [("Content-Length", "10")])
    return [b"four"]


def too_short_stream(environ, start_response):
    ok(start_response, [("Content-Length", "10")])
    yield b"four"


def gives_none(environ, start_response):
    ok(start_response)


def gives_text(environ, start_response):
    ok(start_response)
    return ["text"]


def gives_bytes(environ, start_response):
    ok(start_response)
    return b"ab"


def no_content(environ, start_response):
    start_response("204 No Content", [("Content-Length", "0")])
    return []


def not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"')])
    return [b"not sent"]


class Closing:
    def __init__(self, name, fails=False):
        self.name = name
        self.fails = fails
        self.left = 3

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            if self.fails:
                raise ValueError("broken iterator")
            raise StopIteration
        self.left -= 1
        return self.name.encode()

    def close(self):
        closed.append(self.name)


def closing(environ, start_response):
    ok(start_response)
    return Closing("whole")


def closing_raised(environ, start_response):
    ok(start_response)
    return Closing("raised", fails=True)


def closing_headless(environ, start_response):
    return Closing("headless")


def closing_left(environ, start_response):
    ok(start_response)
    closer = Closing("left")
    closer.left = 1 << 40
    return closer


class CloseRaises(Closing):
    def close(self):
        closed.append(self.name)
        raise ValueError("in close")


def close_raises(environ, start_response):
    ok(start_response)
    return CloseRaises("close-raises")


def closed_so_far(environ, start_response):
    ok(start_response)
    return [json.dumps(closed).encode()]


def echo(environ, start_response):
    ok(start_response)
    return [environ["wsgi.input"].read()]


def count(environ, start_response):
    total = 0
    stream = environ["wsgi.input"]
    while True:
        block = stream.read(65536)
        if not block:
            break
        total += len(block)
    ok(start_response)
    return [str(total).encode()]


def read_all_ways(environ, start_response):
    stream = environ["wsgi.input"]
    space = bytearray(4)
    seen = [
        stream.read(0),
        stream.read(3),
        stream.readline(),
        stream.readline(2),
        stream.readline(),
        stream.readinto(space),
        bytes(space),
        stream.readlines(1),
        next(iter(stream)),
        list(stream),
        stream.read(),
        stream.read(5),
        stream.readline(),
        stream.readinto(space),
    ]
    ok(start_response)
    return [repr(seen).encode()]


def wrapped_input(environ, start_response):
    text = io.TextIOWrapper(io.BufferedReader(environ["wsgi.input"]), encoding="utf-8").read()
    ok(start_response)
    return [text.upper().encode()]


def errors(environ, start_response):
    stream = environ["wsgi.errors"]
    stream.write("first ")
    stream.flush()
    stream.write("line\nsecond line\nwithout")
    stream.writelines([" an", " end"])
    ok(start_response)
    return [b""]


def file(environ, start_response):
    ok(start_response)
    kept["file"] = io.BytesIO(b"0123456789" * 3)
    return environ["wsgi.file_wrapper"](kept["file"], 7)


def file_closed(environ, start_response):
    ok(start_response)
    return [str(kept["file"].closed).encode()]


def keep(environ, start_response):
    ok(start_response)
    kept.update(environ=environ, start_response=start_response)
    return [b"kept"]


def use_kept(environ, start_response):
    try:
        kept["environ"]["wsgi.input"].read()
        read = "read"
    except ValueError as error:
        read = str(error)
    write = kept["start_response"]("200 OK", [("X-Stolen", "1")], (None, None, None))
    try:
        write(b"stolen")
        wrote = "wrote"
    except OSError as error:
        wrote = str(error)
    ok(start_response, [("X-Own", "1")])
    return [json.dumps([read, wrote, kept["start_response"] is start_response]).encode()]


def children(environ, start_response):
    """What a child with all inheritable descriptors sees, and what a fork without exec still has of our sockets."""
    code = "import os; print(len([n for n in os.listdir('/proc/self/fd')]))"
    by_exec = subprocess.run([sys.executable, "-c", code], close_fds=False, stdout=subprocess.PIPE).stdout
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        links = []
        for name in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink("/proc/self/fd/" + name))
            except OSError:
                pass
        os.write(writer, json.dumps([link for link in links if link.startswith("socket:")]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        by_fork = pipe.read()
    os.waitpid(pid, 0)
    ok(start_response)
    return [json.dumps([int(by_exec), json.loads(by_fork)]).encode()]


signalled = threading.Event()
where = []


def on_signal(number, frame):
    where.append(threading.current_thread() is threading.main_thread())
    signalled.set()


signal.signal(signal.SIGUSR1, on_signal)


def signals(environ, start_response):
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    arrived = signalled.wait(10)
    ok(start_response)
    return [json.dumps([arrived, where]).encode()]


def process(environ, start_response):
    import __main__

    names = sorted(name for name in vars(__main__) if not name.startswith("__"))
    ok(start_response)
    shown = [sys.argv, sys.path[0] == os.getcwd(), names, threading.current_thread().name, "_stack" in sys.modules]
    return [json.dumps(shown).encode()]


def spawned(environ, start_response):
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        result = pool.apply(abs, (-7,))
    ok(start_response)
    return [str(result).encode()]


def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/").replace("-", "_")](environ, start_response)


validated = validator(application)


class Nested:
    app = staticmethod(application)


def create_app():
    return application


def create_nothing():
    pass


async def asgi(scope, receive, send):
    pass


class Asgi:
    async def __call__(self, scope, receive, send):
        pass


asgi_instance = Asgi()
text = "not an app"


warmed = []


def warm_up():
    warmed.append("warm")


def warm(environ, start_response):
    ok(start_response)
    return [json.dumps(warmed).encode()]


def say_goodbye():
    print("goodbye")


def stumble():
    raise RuntimeError("stumbled")


@atexit.register
def last():
    print("atexit ran")
