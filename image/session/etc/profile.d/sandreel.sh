# A login shell (`bash -lc`) begins with Debian's PATH: what was installed into the home directory is found all the same.
PATH="$HOME/.local/bin:$PATH"
# And so are the programs that ask for leases, where the session has them.
[ -z "$SANDREEL_PROGRAMS" ] || PATH="$SANDREEL_PROGRAMS:$PATH"
