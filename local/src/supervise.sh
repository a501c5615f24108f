# Runs a command that must not outlive its owner.
# usage: sh supervise.sh <number of a signal> <command> [argument...]
#
# Standard input is a pipe from the owner, on which nothing is ever written. When it closes, the owner has dropped it or is gone. A
# watcher then sends the signal to the command, waits at most five seconds, and kills the rest of its process group and its
# descendants. The watcher belongs to that group, so the system cannot reuse the group's id before that. The command replaces this
# shell's process, so the owner sees its exit status.
exec 3<&0 0</dev/null
signal=$1
shift

descendants() {
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        echo "$child"
        descendants "$child"
    done
}

# Whether the command is running. An ended command may be a zombie until its exit status is read.
running() {
    grep -qs '^State:[[:space:]]*[^ZX[:space:]]' /proc/$$/status
}

watch() {
    trap '' HUP INT QUIT TERM
    read -r _ <&3
    family=$(descendants $$)
    kill -s CONT -- -$$
    kill -"$signal" $$
    tries=0
    while running && [ "$tries" -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
    # Some put their children into separate groups.
    for process in $family; do
        kill -s KILL "$process"
    done
    kill -s KILL -- -$$
}

(watch >/dev/null 2>&1 &)
exec "$@" 3<&-
