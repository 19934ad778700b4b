# A login shell (`bash -lc`) begins with Debian's PATH: what was installed into the home directory is found all the same.
PATH="$HOME/.local/bin:$PATH"
