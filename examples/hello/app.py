"""A page that shows the request as the app saw it. Standard library only, so any Python 3.10 or later serves it."""

import os
import sys
import threading
from html import escape
from pathlib import Path
from string import Template

PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))


def app(environ, start_response):
    handler = ROUTES.get(environ["PATH_INFO"])
    if handler is None:
        return not_found(environ, start_response)
    return handler(environ, start_response)


def home(environ, start_response):
    body = PAGE.substitute(
        request=rows(request_facts(environ)),
        headers=rows(headers(environ)),
        server=rows(server_facts(environ)),
    ).encode()
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    content_type = environ.get("CONTENT_TYPE") or "application/octet-stream"
    start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]


def boom(environ, start_response):
    raise RuntimeError("this page fails on purpose: its traceback is in the terminal")


ROUTES = {"/": home, "/echo": echo, "/boom": boom}


def not_found(environ, start_response):
    body = f"There is no {path(environ)} here.\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response("404 Not Found", headers)
    return [body]


def path(environ):
    """PEP 3333 hands bytes over as latin-1."""
    return environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")


def request_facts(environ):
    return {
        "Client": f"{environ['REMOTE_ADDR']} port {environ.get('REMOTE_PORT', '?')}",
        "Scheme": environ["wsgi.url_scheme"],
        "Protocol": environ["SERVER_PROTOCOL"],
        "Host": environ.get("HTTP_HOST", ""),
        "Server": f"{environ['SERVER_NAME']} port {environ['SERVER_PORT']}",
        "Method": environ["REQUEST_METHOD"],
        "Path": path(environ),
        "Query": environ.get("QUERY_STRING", ""),
        "Request id": environ.get("HTTP_X_REQUEST_ID", ""),
    }


def headers(environ):
    return {
        name[5:].replace("_", "-").title(): value
        for name, value in sorted(environ.items())
        if name.startswith("HTTP_")
    }


def server_facts(environ):
    return {
        "Server": environ.get("SERVER_SOFTWARE", ""),
        "Python": sys.version.split()[0],
        "Interpreter": sys.executable,
        "Process": os.getpid(),
        "Thread": threading.current_thread().name,
    }


def rows(facts):
    return "\n".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value)) or '–'}</td></tr>" for name, value in facts.items()
    )
