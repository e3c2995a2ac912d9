"""Does to threads what `monkey.patch_all()` of gevent and eventlet does."""
import threading


def in_a_greenlet(*arguments, **options):
    raise NotImplementedError


for name in ("_start_joinable_thread", "_start_new_thread"):
    if hasattr(threading, name):
        setattr(threading, name, in_a_greenlet)


def app(environ, start_response):
    start_response("200 OK", [])
    return []
