# Runs a command that must not outlive its owner.
# usage: sh supervise.sh <number of a signal> <command> [argument...]
#
# Standard input is a pipe that only the owner can write to and nobody does. Its end means that the
# owner let go or is gone, however it went. A watcher then sends the signal to the command, waits five seconds at most,
# and kills what is left of its process group and its descendants. The watcher belongs to that group, so the group's
# number, which is the command's, cannot pass to a stranger meanwhile. The command itself takes over this shell's
# process, so its exit status is what the owner sees.
exec 3<&0 0</dev/null
signal=$1
shift

descendants() {
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        echo "$child"
        descendants "$child"
    done
}

# Whether the command runs; one that has ended may stay a zombie for as long as nobody asks how it ended.
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
    # Some put their children into groups of their own.
    for process in $family; do
        kill -s KILL "$process"
    done
    kill -s KILL -- -$$
}

(watch >/dev/null 2>&1 &)
exec "$@" 3<&-
