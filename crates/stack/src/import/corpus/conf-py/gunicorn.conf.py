# Gunicorn configuration
"""A site's gunicorn."""
import multiprocessing
import os

bind = ["0.0.0.0:8000", "unix:/run/site.sock"]
workers = multiprocessing.cpu_count() * 2 + 1
worker_class = "gthread"
threads = 4
timeout = 120
graceful_timeout = 30
keepalive = 5
max_requests = 1_000
max_requests_jitter = 50
accesslog = "-"
errorlog = "/var/log/site/error.log"
loglevel = os.environ.get("LOG_LEVEL", "info")
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(D)s'
raw_env = [
    "DJANGO_SETTINGS_MODULE=site.settings",
    "LANG=C.UTF-8",
]
preload_app = True
daemon = False
pidfile = "/run/site.pid"
umask = 0o027
user = "site"
group = 33
forwarded_allow_ips = "10.0.0.1,10.0.0.2"
limit_request_line = 8190
limit_request_field_size = 8190
statsd_host = "localhost:8125"
secret = "not a setting"
wsgi_app = "site.wsgi:application"


def post_worker_init(worker):
    worker.log.info("hello")


def when_ready(server):
    pass


if os.environ.get("DEBUG"):
    reload = True
