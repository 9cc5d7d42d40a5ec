#!/bin/sh
# Deploys a Django release. poller runs this as the deploy user, in the release, once
# `current` points to it and before it restarts the units in todo.toml. Any status
# but 0 is a failed deploy (75: not now, try again at the next poll).
#
# It runs again, in the previous release, when a deploy is rolled back. The database
# is not rolled back, so a migration must leave the previous release working: add
# columns in one deploy, stop using the old ones, and drop them in a later one.
set -eu

# A virtual environment for each release, not one in shared/. In a shared one, pip
# would change the packages below the feet of the running site, a failed install
# would break it, and a rollback would need the network to get the old ones back.
# pip is what venv adds last: without it, an earlier run did not get through.
if ! [ -x .venv/bin/pip ]; then
    python3 -m venv --clear .venv
fi
# The copy of the list is made after the install, so it tells what is complete. On a
# rollback there is then nothing to install, hence nothing to download.
if ! cmp -s requirements.txt .venv/installed.txt; then
    .venv/bin/pip install --quiet --disable-pip-version-check --no-input -r requirements.txt
    cp requirements.txt .venv/installed.txt
fi

# A rollback finds the database ahead of this release's migrations: nothing to apply.
if [ "${POLLER_REASON:-deploy}" != rollback ]; then
    .venv/bin/python manage.py migrate --noinput
fi
.venv/bin/python manage.py collectstatic --noinput

# No restart here: `restart` in todo.toml has poller do it, as root, and count it as
# part of the deploy. A script that must do it itself, halfway through say, calls
#
#     sudo -n /usr/bin/systemctl restart todo_gunicorn.service
#
# with `/usr/bin/systemctl restart todo_gunicorn.service` in `deploy.sudo`, and what
# `poller sudoers todo` prints in /etc/sudoers.d. -n: fail rather than wait for a
# password that nobody types.
