# Sourced by the scripts beside it. What the machine lacks is installed after saying so, and everything that took time to
# make is kept under ~/.cache/stepwell-*; a file there is whole or absent, so that any of this may be killed at any time.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
CACHES=${XDG_CACHE_HOME:-$HOME/.cache}
# shellcheck disable=SC2034  # read by those who source this file
CLUSTER=${KIND_CLUSTER:-stepwell}
# kind and helm may lie there as kind.xz and helm.xz, what the node is made of as kube.xz and coredns.xz.
# shellcheck disable=SC2034  # read by those who source this file
PREBUILT=${KIND_NODE_PREBUILT:-}

say() { printf 'stepwell: %s\n' "$*" >&2; }

refuse() {
    say "$1"
    shift
    [ $# = 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

# need COMMAND[=PACKAGE]...: what is not there is installed, where that is possible.
need() {
    local pair missing=() packages=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || [ -x "/usr/lib/podman/${pair%%=*}" ] || {
            missing+=("${pair%%=*}")
            packages+=("${pair##*=}")
        }
    done
    [ ${#missing[@]} = 0 ] && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        refuse "this machine has no ${missing[*]}" \
            "on Debian or Ubuntu: sudo apt-get install --no-install-recommends ${packages[*]}"
    fi
    say "no ${missing[*]} on this machine: installing ${packages[*]}"
    apt-get update -qq >/dev/null 2>&1 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null ||
        refuse "installing ${packages[*]} failed"
}

# locked NAME: wait until nobody else makes the same thing. The lock, of the descriptor LOCK, goes with the process.
locked() {
    mkdir -p "$CACHES/stepwell-kind"
    exec {LOCK}>"$CACHES/stepwell-kind/$1.lock"
    flock -n "$LOCK" || {
        say "waiting for another process that makes the same ($1)"
        flock "$LOCK"
    }
}

# Whether image registries answer here: those of the two images that everything else stands on.
can_pull() {
    case ${STEPWELL_CAN_PULL:-} in yes) return 0 ;; no) return 1 ;; esac
    local status
    status=$(curl -s -o /dev/null -m 5 -w '%{http_code}' https://registry-1.docker.io/v2/ || true)
    # 401 is how a registry greets a stranger.
    if [ "$status" = 401 ] || [ "$status" = 200 ]; then STEPWELL_CAN_PULL=yes; else STEPWELL_CAN_PULL=no; fi
    export STEPWELL_CAN_PULL
    [ "$STEPWELL_CAN_PULL" = yes ]
}

# Docker where its daemon answers, else podman; where nothing can be pulled, a podman with a storage of its own.
choose_engine() {
    need curl flock=util-linux
    if ! can_pull; then
        need podman runc netavark aardvark-dns iptables debootstrap xz=xz-utils
        ENGINE=podman
        export CONTAINERS_CONF=$ROOT/tests/cluster/kind_node/containers.conf
        export CONTAINERS_STORAGE_CONF=$CACHES/stepwell-containers/storage.conf
        mkdir -p "$CACHES/stepwell-containers"
        printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' \
            "$CACHES/stepwell-containers/storage" /run/stepwell-containers >"$CONTAINERS_STORAGE_CONF.$$"
        mv "$CONTAINERS_STORAGE_CONF.$$" "$CONTAINERS_STORAGE_CONF"
    elif docker info >/dev/null 2>&1; then
        ENGINE=docker
    else
        need podman
        ENGINE=podman
    fi
    [ "$ENGINE" = docker ] || export KIND_EXPERIMENTAL_PROVIDER=podman
}

# fresh_directory WHERE: a directory there that goes with this process. One that a killed process left goes now: the
# caller holds the lock.
fresh_directory() {
    mkdir -p "$1"
    rm -rf "$1"/making-*
    mktemp -d "$1/making-XXXXXX"
}

has_image() { "$ENGINE" image inspect "$1" >/dev/null 2>&1; }

# fingerprint FILE...: of what an image is made from; it is in the image's tag, so that a change makes a new image.
fingerprint() { cat "$@" | sha256sum | cut -c1-12; }

# build TAG ARGUMENTS...: an image, by either program. Root without CAP_SYS_RESOURCE can build only in a chroot.
build() {
    local tag=$1
    shift
    local arguments=(--quiet --tag "$tag") authorities=/etc/ssl/certs/ca-certificates.crt
    # Debian's list with those that this machine's owner added, should packages come through a proxy of theirs.
    [ ! -f "$authorities" ] || arguments+=(--secret "id=ca,src=$authorities")
    [ "$ENGINE" = docker ] || arguments+=(--network host)
    [ -z "${CONTAINERS_STORAGE_CONF:-}" ] || arguments+=(--isolation chroot)
    nice -n 5 "$ENGINE" build "${arguments[@]}" "$@" >/dev/null || refuse "building the image $tag failed"
}

GO_VERSION=1.26.8

# A Go that is new enough, first in PATH. From 1.21 on Go fetches the release that a module asks for by itself; Debian's
# may be older, and then fetches it as the module that it is.
need_go() {
    local minor directory
    need go=golang-go
    minor=$(go version | sed -nE 's/.* go1\.([0-9]+).*/\1/p')
    if [ "${minor:-0}" -lt 21 ]; then
        directory=$CACHES/stepwell-go/$GO_VERSION
        if [ ! -d "$directory" ]; then
            say "Go 1.$minor is too old here: fetching Go $GO_VERSION from the module proxy"
            fetch_go "$directory"
        fi
        PATH=$directory/bin:$PATH
        export GOROOT=$directory
    fi
    export CGO_ENABLED=0
}

fetch_go() {
    local architecture there making
    architecture=$(go env GOHOSTARCH)
    there=$(go mod download -json "golang.org/toolchain@v0.0.1-go$GO_VERSION.linux-$architecture" |
        sed -nE 's/^\s*"Dir": "(.*)",?$/\1/p')
    [ -n "$there" ] || refuse "the module proxy has no Go $GO_VERSION for $architecture"
    making=$(fresh_directory "$(dirname "$1")")
    cp -r "$there" "$making/go"
    # A module's files cannot be executable.
    chmod -R u+w "$making/go"
    chmod +x "$making/go"/bin/* "$making/go"/pkg/tool/*/*
    mv "$making/go" "$1"
    rm -rf "$making"
}
