# What the programs here have in common. Not a program.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# end NAME: what was started under that name has ended.
end() {
	[ -e "$WORLD/$1.pid" ] || return 0
	local pid; pid=$(cat "$WORLD/$1.pid"); rm "$WORLD/$1.pid"
	kill "$pid" 2>/dev/null || return 0
	for _ in $(seq 500); do alive "$pid" || return 0; sleep 0.02; done
	say "$1 does not end"
}

# alive PID: it runs. What has ended may wait for a parent that has better to do.
alive() { [ -e "/proc/$1/stat" ] && [[ ! $(cat "/proc/$1/stat") =~ \)\ Z ]]; }

# begin NAME TEXT COMMAND...: in the background, ready when it has printed the text.
begin() {
	local name=$1 text=$2; shift 2
	end "$name"
	: >"$WORLD/$name.log" # what an earlier one printed says nothing
	"$@" >"$WORLD/$name.log" 2>&1 </dev/null &
	local pid=$!; echo "$pid" >"$WORLD/$name.pid"
	for _ in $(seq 1000); do
		if grep -q "$text" "$WORLD/$name.log"; then return 0; fi
		alive "$pid" || { tail -n 20 "$WORLD/$name.log" >&2; say "$* ended"; }
		sleep 0.02
	done
	say "$* is not ready"
}
