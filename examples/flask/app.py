"""A small Flask app with what most have: a form, an upload, JSON, templates, a session cookie, an error page."""

import hashlib
import os
import tempfile
from pathlib import Path

from flask import Flask, jsonify, redirect, render_template, request, session, url_for

app = Flask(__name__)
app.config.update(
    # Anyone who knows the key can forge sessions: set FLASK_SECRET_KEY where it matters.
    SECRET_KEY=os.environ.get("FLASK_SECRET_KEY", "only-for-development"),
    SESSION_COOKIE_SAMESITE="Lax",
    UPLOADS=Path(os.environ.get("FLASK_UPLOADS", Path(__file__).parent / "uploads")),
)


@app.get("/")
def home():
    return render_template("home.html", visits=visit(), notes=session.get("notes", []))


@app.post("/notes")
def add_note():
    note = request.form.get("note", "").strip()
    if note:
        session["notes"] = [*session.get("notes", []), note[:200]][-5:]
    return redirect(url_for("home"), code=303)


@app.post("/upload")
def upload():
    sent = request.files.get("file")
    if sent is None or not sent.filename:
        return render_template("error.html", code=400, title="No file was chosen"), 400
    app.config["UPLOADS"].mkdir(parents=True, exist_ok=True)
    # A name of our own: the one that was sent may be anything.
    with tempfile.NamedTemporaryFile(dir=app.config["UPLOADS"], delete=False) as saved:
        sent.save(saved)
    path = Path(saved.name)
    return render_template("upload.html", name=sent.filename, size=path.stat().st_size, sha256=sha256(path))


@app.get("/api/request")
def api_request():
    return jsonify(
        client=request.remote_addr,
        scheme=request.scheme,
        host=request.host,
        url=request.url,
        secure=request.is_secure,
        request_id=request.headers.get("X-Request-Id"),
    )


@app.post("/api/sum")
def api_sum():
    numbers = request.get_json().get("numbers", [])
    return jsonify(count=len(numbers), sum=sum(numbers))


@app.get("/boom")
def boom():
    raise RuntimeError("this page fails on purpose: its traceback is in the terminal")


@app.errorhandler(404)
def not_found(error):
    return render_template("error.html", code=404, title="There is no such page"), 404


@app.errorhandler(500)
def failed(error):
    request_id = request.headers.get("X-Request-Id")
    return render_template("error.html", code=500, title="That was our mistake", request_id=request_id), 500


def visit():
    session["visits"] = session.get("visits", 0) + 1
    return session["visits"]


def sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(1 << 16):
            digest.update(block)
    return digest.hexdigest()
