# An app in a container, with its packages in a virtual environment of its own.
#
#   podman build --file Containerfile.app --tag shop .        (in the app's folder, with app.py and requirements.txt)

# The image of the other file, as it was just made here.
# hadolint ignore=DL3006
FROM stack
USER 0:0
COPY requirements.txt /srv/web/
RUN python -m venv /srv/web/.venv && /srv/web/.venv/bin/pip install --no-cache-dir --requirement /srv/web/requirements.txt
# The app cannot change its own code: root owns it.
COPY . /srv/web
USER 10001:10001
