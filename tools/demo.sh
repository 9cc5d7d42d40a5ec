#!/bin/bash
# poller's main job on a throwaway git server, start to end. Usage: tools/demo.sh POLLER
#
# Everything happens in one temporary folder: a real sshd on loopback with a host key of its own, a
# deploy key, a repository, poller's configuration and state. As root there are three throwaway users
# as well. All of it goes when the script ends, however it ends. What is shown is also checked: the
# demo fails when something did not come out as told.
set -euo pipefail

poller=$(realpath -- "${1:?usage: tools/demo.sh POLLER}")
[ -x "$poller" ] || { echo "demo: $poller is no program; build it first: make demo" >&2; exit 1; }

bold='' faint='' green='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$'\e[1m' faint=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

# --- the throwaway world ------------------------------------------------------------------------

world='' sshd_pid='' made_run_sshd=''
users=() fetch_user='' site_user=''

clean_up() {
    trap - EXIT
    trap '' INT TERM HUP
    if [ -n "$sshd_pid" ]; then
        kill "$sshd_pid" 2>/dev/null || true
        wait "$sshd_pid" 2>/dev/null || true
    fi
    for user in "${users[@]}"; do
        # A connection may take a moment to end, and an account in use is not removed.
        userdel "$user" 2>/dev/null || { sleep 1; userdel --force "$user" 2>/dev/null || true; }
    done
    [ -z "$made_run_sshd" ] || rmdir /run/sshd 2>/dev/null || true
    [ -z "$world" ] || rm -rf -- "$world"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
    printf '%s\ndemo: %s%s\n' "$red" "$*" "$plain" >&2
    if [ -s "$world/server/log" ]; then
        echo "demo: the end of the git server's log:" >&2
        tail -n 5 "$world/server/log" >&2
    fi
    exit 1
}

make_user() { # VARIABLE NAME SHELL
    local name=$2
    ! getent passwd "$name" >/dev/null || name=$2-$$
    # Not locked ("!"), as sshd takes that for "may not log in"; "*" is a password that nobody has.
    useradd --system --no-create-home --home-dir "$world" --password '*' --shell "$3" "$name"
    users+=("$name")
    printf -v "$1" %s "$name"
}

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

start_sshd() {
    local sshd
    sshd=$(PATH=$PATH:/usr/sbin:/sbin command -v sshd) || fail "there is no sshd: apt-get install openssh-server"
    if [ "$EUID" = 0 ] && [ ! -d /run/sshd ]; then # its service would make it
        mkdir -m 0755 /run/sshd
        made_run_sshd=yes
    fi
    for _ in 1 2 3 4 5; do
        port=$(free_port)
        cat >server/sshd_config <<-CONFIG
			ListenAddress 127.0.0.1:$port
			HostKey $world/server/host_key
			AuthorizedKeysFile $world/server/authorized_keys
			AllowUsers $git_user
			AcceptEnv GIT_PROTOCOL
			PasswordAuthentication no
			KbdInteractiveAuthentication no
			UsePAM no
			StrictModes no
			PrintMotd no
			PidFile none
		CONFIG
        "$sshd" -D -e -f "$world/server/sshd_config" 2>>server/log </dev/null &
        sshd_pid=$!
        for _ in {1..100}; do
            kill -0 "$sshd_pid" 2>/dev/null || break # somebody else took the port
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
            sleep 0.05
        done
        kill "$sshd_pid" 2>/dev/null || true
    done
    fail "sshd does not start"
}

make_world() {
    # Root trusts no configuration below a folder that others may write to; /srv is not such a one.
    local below=${TMPDIR:-/tmp}
    [ "$EUID" != 0 ] || below=/srv
    world=$(mktemp -d "$below/poller-demo.XXXXXX")
    chmod 0755 "$world"
    cd "$world"
    umask 022
    mkdir -p etc/apps.d etc/keys server site dev

    # Nobody's own git configuration has a say here, and no hook of it runs.
    export GIT_CONFIG_GLOBAL=$world/dev/gitconfig GIT_CONFIG_NOSYSTEM=1
    unset "${!GIT_DIR@}" GIT_WORK_TREE GIT_INDEX_FILE XDG_CONFIG_HOME
    printf '%s\n' '[user]' 'name = Ada' 'email = ada@example.org' '[init]' 'defaultBranch = main' \
        '[safe]' 'directory = *' >dev/gitconfig

    git_user=$(id -un) deploy_lines=''
    if [ "$EUID" = 0 ]; then
        make_user git_user pollerdemo-git "$(command -v git-shell)"
        make_user fetch_user pollerdemo-fetch /usr/sbin/nologin
        make_user site_user pollerdemo-site /usr/sbin/nologin
        chown "$site_user:" site
        printf '[host]\nfetch_user = "%s"\n' "$fetch_user" >etc/poller.toml
        deploy_lines=$'\n'"user = \"$site_user\""
    fi
    printf '[paths]\nstate = "%s/state"\nrun = "%s/run"\nlog = "%s/log/poller.log"\n' \
        "$world" "$world" "$world" >>etc/poller.toml

    chmod 0700 etc/keys
    ssh-keygen -q -t ed25519 -N '' -C 'deploy key' -f etc/keys/site
    ssh-keygen -q -t ed25519 -N '' -C 'host key' -f server/host_key
    # What a forge makes of a read-only deploy key: it runs one program, and nothing else.
    echo "restrict $(cat etc/keys/site.pub)" >server/authorized_keys
    git init -q --bare server/site.git
    [ "$EUID" != 0 ] || chown "$git_user:" server/site.git
    start_sshd
    echo "[127.0.0.1]:$port $(cut -d' ' -f1,2 server/host_key.pub)" >etc/known_hosts

    cat >etc/apps.d/site.toml <<-CONFIG
		[source]
		url = "ssh://$git_user@127.0.0.1:$port$world/server/site.git"
		branch = "main"
		identity = "keys/site"

		[target]
		directory = "$world/site"

		[deploy]$deploy_lines
		script = "./deploy.sh"
	CONFIG

    git clone -q server/site.git dev/site 2>/dev/null
    echo 'Hello' >dev/site/index.html
    # shellcheck disable=SC2016
    printf '%s\n' '#!/bin/sh' 'grep Hello index.html || { echo "no greeting, no deploy" >&2; exit 1; }' \
        >dev/site/deploy.sh
    chmod +x dev/site/deploy.sh
    git -C dev/site add .
    git -C dev/site commit -qm 'A site that greets'
    git -C dev/site push -q origin main
    PATH=$(dirname -- "$poller"):$PATH
}

# --- telling and checking -------------------------------------------------------------------------

chapter() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
note() { printf '%s  # %s%s\n' "$faint" "$1" "$plain"; }
prompt() { printf '%s$ %s%s\n' "$green" "$1" "$plain"; }

# Each shows a command, runs it, and keeps its output in `said` and its status in `status`.
run() { # as at a prompt, but without a terminal, which is how cron runs it
    prompt "$1"
    status=0
    said=$(bash -c "$1" </dev/null 2>&1) || status=$?
    [ -z "$said" ] || printf '%s\n' "$said"
}
watch() { # with a terminal of its own, whatever this script writes to
    prompt "$1"
    status=0
    local plainly=()
    [ -n "$plain" ] || plainly=(NO_COLOR=1)
    said=$(env "${plainly[@]}" script --quiet --return --command "$1" /dev/null </dev/null) || status=$?
    # Progress that was overwritten, and the terminal's line ends.
    said=$(sed -e 's/\r*$//' -e 's/.*\r\(\x1b\[K\)\?//' -e 's/^\^D\x08*//' <<<"$said")
    printf '%s\n' "$said"
}

exits() { [ "$status" = "$1" ] || fail "that should have ended with $1, and ended with $status"; }
says() { [[ $said == *"$1"* ]] || fail "that should have said: $1"; }
is_silent() { [ -z "$said" ] || fail "that should have said nothing"; }
is_live() { [ "$(cat site/current/index.html)" = "$1" ] || fail "\"$1\" should be live now"; }
push() { # CONTENT SUBJECT
    echo "$1" >dev/site/index.html
    run "git -C dev/site commit -qam '$2' && git -C dev/site push -q"
    exits 0
}
poll='poller --config etc/poller.toml'

make_world
began=$SECONDS

chapter '1. A first deploy'
note "One file an app. $git_user@127.0.0.1:$port is a real sshd with a key of its own, pinned in etc/known_hosts."
run 'cat etc/apps.d/site.toml'
note 'On a terminal, poller tells what it does.'
watch "$poll"
exits 0; says 'deployed'; is_live Hello
run 'readlink site/current'
says releases/
run 'cat site/current/index.html'

chapter '2. Nothing new'
note 'Without a terminal, as under cron, no news is good news: no output, no mail.'
run "$poll; echo \"exit status \$?\""
[ "$said" = 'exit status 0' ] || fail 'that should have been silent'

chapter '3. A push'
push 'Hello, world' 'Greet everybody'
note 'A dry run shows what would happen. It runs nothing and leaves nothing.'
run "$poll --dry-run"
exits 0; says 'Greet everybody'; says 'would deploy'; is_live Hello
note 'The real run. Still silent: it went well.'
run "$poll"
exits 0; is_silent; is_live 'Hello, world'
run 'cat site/current/index.html site/current/REVISION'

chapter '4. A push whose script fails'
push 'Goodbye' 'Take leave'
note 'This is what cron would mail: what failed, what is live, what comes next, and what the script said.'
run "$poll; echo \"exit status \$?\""
says 'exit status 1'; says 'no greeting, no deploy'
note 'The release before is live again.'
run 'cat site/current/index.html'
is_live 'Hello, world'
note 'The next poll tries again, and it fails again. The same news is not mailed twice.'
run "$poll; echo \"exit status \$?\""
[ "$said" = 'exit status 1' ] || fail 'the second failure should have been silent'
is_live 'Hello, world'

chapter '5. Where it stands, and what happened'
note 'No server is asked for this.'
run "poller status --config etc/poller.toml"
exits 0; says 'failed attempt 2 of 3'
run "poller history site --config etc/poller.toml"
exits 0; says 'retry'; says 'exited with status 1'

chapter '6. Back, by hand, and frozen there'
note 'To the release before, without the network; its script runs again.'
run "poller rollback site --reason 'too cheerful' --config etc/poller.toml"
exits 0; is_live Hello
note 'The next poll leaves it alone, whatever is pushed.'
run "$poll"
exits 0; is_silent; is_live Hello
run "poller unfreeze site --config etc/poller.toml"
exits 0; says 'no longer frozen'

chapter '7. The same in plain git and plain JSON'
note 'State and history are commits in a bare repository.'
run "git --git-dir state/*.git log --first-parent --format='%h %s' refs/poller/site"
says 'site: retry failed'; says 'site: deploy deployed: nothing'
run 'git --git-dir state/*.git show refs/poller/site:state.toml'
says 'deployed'
note 'The log: one JSON object a line.'
run 'grep deploy.finished log/poller.log | tail -n 1'
says '"outcome":"deployed"'

printf '\n%sAll as told, in %s s. %sServer, keys, users and files are removed.%s\n' \
    "$bold" "$((SECONDS - began))" "$plain$faint" "$plain"
