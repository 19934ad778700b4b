# Read by every bash that runs a command or a script (BASH_ENV), also a login shell, behind the machine's /etc/profile, which
# begins with a PATH of its own: the programs that ask for leases are found all the same.
case "$PATH" in
"${SANDREEL_PROGRAMS-}":*) ;;
*) [ -z "${SANDREEL_PROGRAMS-}" ] || PATH="$SANDREEL_PROGRAMS:$PATH" ;;
esac
