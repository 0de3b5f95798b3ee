# What the scripts share; each reads this file with its own arguments. Not for use alone.
# shellcheck shell=bash

# --dry-run, if it is the first argument, is taken away and remembered.
dry=
if [[ ${1:-} == --dry-run ]]; then dry=--dry-run; shift; fi

fail() { echo "${0##*/}: $*" >&2; exit 2; }

# Ends the script if one of these variables is not set.
need() {
  local variable missing=()
  for variable in "$@"; do [[ ${!variable:-} ]] || missing+=("$variable"); done
  [[ ${#missing[@]} == 0 ]] || fail "set ${missing[*]}; see the examples at the top of launch/${0##*/}"
}

# Ends the script if one of these variables is not a whole number.
whole() {
  local variable
  for variable in "$@"; do
    [[ ${!variable} =~ ^[0-9]+$ ]] || fail "$variable: expected a whole number, found '${!variable}'"
  done
}

# Runs a command, or prints it in a dry run. Descriptor 3 is the output of the script, also inside $(...).
exec 3>&1
run() {
  if [[ $dry ]]; then quoted "$@" >&3; else "$@"; fi
}

# The words as a shell reads them.
quoted() {
  local word words=()
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=${word@Q}
    words+=("$word")
  done
  echo "${words[*]}"
}
